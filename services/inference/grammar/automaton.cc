#include "services/inference/grammar/automaton.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/inference/grammar/grammar_text.h"

namespace onegrid::grammar {
namespace {

// Steps of making an automaton deterministic, each of some nanoseconds.
constexpr int64_t kMaxWork = 20'000'000;
// States written into the rule of the one before them.
constexpr int kMaxInlined = 32;

struct Edge {
  CharSet set;
  int to;
};

// Not deterministic.
class Automaton {
 public:
  explicit Automaton(TextPlace place) : place_(place) {}

  // Adds states for the texts between `from` and the state it returns.
  int Add(const TextNode& node, int from) {
    switch (node.kind) {
      case TextNode::Kind::kSet:
        return AddSet(node.set, from);
      case TextNode::Kind::kSequence:
        for (const TextNode& part : node.parts) from = Add(part, from);
        return from;
      case TextNode::Kind::kChoice: {
        const int end = AddState();
        for (const TextNode& part : node.parts) {
          const int begin = AddState();
          empty_[from].push_back(begin);
          empty_[Add(part, begin)].push_back(end);
        }
        return end;
      }
      case TextNode::Kind::kRepeat:
        return AddRepeat(node, from);
    }
    return from;
  }

  int AddState() {
    edges_.emplace_back();
    empty_.emplace_back();
    return static_cast<int>(edges_.size()) - 1;
  }

  const std::vector<Edge>& edges(int state) const { return edges_[state]; }
  const std::vector<int>& empty(int state) const { return empty_[state]; }
  size_t size() const { return edges_.size(); }

 private:
  int AddRepeat(const TextNode& node, int from) {
    const TextNode& part = node.parts.front();
    for (int64_t i = 0; i < node.min; ++i) from = Add(part, from);
    if (node.max < 0) {
      const int begin = AddState();
      const int end = AddState();
      empty_[from].push_back(begin);
      empty_[Add(part, begin)].push_back(begin);
      empty_[begin].push_back(end);
      return end;
    }
    const int end = AddState();
    for (int64_t i = node.min; i < node.max; ++i) {
      empty_[from].push_back(end);
      const int begin = AddState();
      empty_[from].push_back(begin);
      from = Add(part, begin);
    }
    empty_[from].push_back(end);
    return end;
  }

  int AddSet(const CharSet& set, int from) {
    const int end = AddState();
    if (place_ == TextPlace::kWhole) {
      edges_[from].push_back({set, end});
      return end;
    }
    const CharSet plain = set.Intersect(JsonPlain());
    if (!plain.empty()) edges_[from].push_back({plain, end});
    const CharSet letters = JsonEscapes(set);
    if (letters.empty()) return end;
    const int escape = AddState();
    edges_[from].push_back({CharSet({{'\\', '\\'}}), escape});
    edges_[escape].push_back({letters, end});
    return end;
  }

  const TextPlace place_;
  std::vector<std::vector<Edge>> edges_;
  std::vector<std::vector<int>> empty_;
};

struct State {
  std::vector<Edge> edges;
  bool final = false;
};

class Determinizer {
 public:
  Determinizer(const Automaton& automaton, int end)
      : automaton_(automaton), end_(end) {}

  absl::StatusOr<std::vector<State>> Run() {
    Number({0});
    for (size_t i = 0; i < sets_.size(); ++i) {
      if (sets_.size() > kMaxStates || work_ > kMaxWork) {
        return NotSupported(
            absl::StrCat("a text of more than ", kMaxStates,
                         " states, as counts and choices that overlap have"));
      }
      states_.resize(sets_.size());
      const std::vector<int> set = sets_[i];
      State state;
      state.final = std::binary_search(set.begin(), set.end(), end_);
      state.edges = EdgesOf(set);
      states_[i] = std::move(state);
    }
    states_.resize(sets_.size());
    return std::move(states_);
  }

 private:
  // The number of the state that stands for these and what follows them
  // without a character.
  int Number(std::vector<int> set) {
    std::vector<bool> seen(automaton_.size());
    for (const int state : set) seen[state] = true;
    for (size_t i = 0; i < set.size(); ++i) {
      for (const int next : automaton_.empty(set[i])) {
        if (seen[next]) continue;
        seen[next] = true;
        set.push_back(next);
      }
    }
    work_ += static_cast<int64_t>(set.size() + seen.size() / 64);
    std::sort(set.begin(), set.end());
    const auto [found, is_new] =
        numbers_.emplace(set, static_cast<int>(sets_.size()));
    if (is_new) sets_.push_back(std::move(set));
    return found->second;
  }

  std::vector<Edge> EdgesOf(const std::vector<int>& set) {
    // Places where the states that are reached change.
    std::vector<uint32_t> bounds;
    for (const int state : set) {
      for (const Edge& edge : automaton_.edges(state)) {
        for (const CharSet::Range& range : edge.set.ranges()) {
          bounds.push_back(range.first);
          bounds.push_back(range.last + 1);
        }
      }
    }
    std::sort(bounds.begin(), bounds.end());
    bounds.erase(std::unique(bounds.begin(), bounds.end()), bounds.end());
    std::map<std::vector<int>, CharSet> reached;
    for (size_t i = 0; i + 1 < bounds.size(); ++i) {
      std::vector<int> targets;
      for (const int state : set) {
        for (const Edge& edge : automaton_.edges(state)) {
          if (edge.set.Contains(bounds[i])) targets.push_back(edge.to);
          work_ += static_cast<int64_t>(edge.set.ranges().size());
        }
      }
      if (work_ > kMaxWork) return {};
      if (targets.empty()) continue;
      std::sort(targets.begin(), targets.end());
      targets.erase(std::unique(targets.begin(), targets.end()), targets.end());
      reached[std::move(targets)].Add(bounds[i], bounds[i + 1] - 1);
    }
    std::map<int, CharSet> edges;
    for (const auto& [targets, characters] : reached) {
      edges[Number(targets)].Add(characters);
    }
    std::vector<Edge> result;
    for (auto& [to, characters] : edges) {
      result.push_back({std::move(characters), to});
    }
    return result;
  }

  const Automaton& automaton_;
  const int end_;
  int64_t work_ = 0;
  std::map<std::vector<int>, int> numbers_;
  std::vector<std::vector<int>> sets_;
  std::vector<State> states_;
};

// Writes states as rules.
class Writer {
 public:
  Writer(const std::vector<State>& states, TextPlace place, GrammarRules& rules)
      : states_(states),
        end_(place == TextPlace::kJsonString ? Literal("\"") : Literal("")),
        after_(place == TextPlace::kJsonString ? kAfterJsonString : ""),
        rules_(rules),
        names_(states.size()) {}

  absl::StatusOr<std::string> Write() {
    const std::string first = Name(0);
    while (!pending_.empty()) {
      const int state = pending_.back();
      pending_.pop_back();
      std::vector<std::string> choices;
      if (states_[state].final) choices.push_back(end_);
      for (const Edge& edge : states_[state].edges) {
        choices.push_back(absl::StrCat(OneOf(edge.set), Following(edge.to)));
      }
      RETURN_IF_ERROR(rules_.Define(
          names_[state],
          absl::StrCat(choices.size() == 1 ? choices[0] : AnyOf(choices),
                       after_)));
    }
    return first;
  }

 private:
  const std::string& Name(int state) {
    if (names_[state].empty()) {
      names_[state] = rules_.Declare();
      pending_.push_back(state);
    }
    return names_[state];
  }

  // What comes from a state on; states with one way out are written in place.
  std::string Following(int state) {
    std::string out;
    for (int i = 0; i < kMaxInlined; ++i) {
      const State& at = states_[state];
      if (at.final && at.edges.empty()) return absl::StrCat(out, " ", end_);
      if (at.final || at.edges.size() != 1 || !names_[state].empty()) break;
      absl::StrAppend(&out, " ", OneOf(at.edges[0].set));
      state = at.edges[0].to;
    }
    return absl::StrCat(out, " ", Name(state));
  }

  const std::vector<State>& states_;
  const std::string end_;
  const absl::string_view after_;
  GrammarRules& rules_;
  std::vector<std::string> names_;
  std::vector<int> pending_;
};

}  // namespace

TextNode TextNode::Set(CharSet set) {
  return {Kind::kSet, std::move(set), {}, 0, -1};
}

TextNode TextNode::Sequence(std::vector<TextNode> parts) {
  return {Kind::kSequence, {}, std::move(parts), 0, -1};
}

TextNode TextNode::Choice(std::vector<TextNode> parts) {
  return {Kind::kChoice, {}, std::move(parts), 0, -1};
}

TextNode TextNode::Repeat(TextNode part, int64_t min, int64_t max) {
  TextNode node = {Kind::kRepeat, {}, {}, min, max};
  node.parts.push_back(std::move(part));
  return node;
}

absl::StatusOr<std::string> TextExpression(const TextNode& texts,
                                           TextPlace place,
                                           GrammarRules& rules) {
  Automaton automaton(place);
  const int begin = automaton.AddState();
  const int end = automaton.Add(texts, begin);
  ASSIGN_OR_RETURN(const std::vector<State> states,
                   Determinizer(automaton, end).Run());
  ASSIGN_OR_RETURN(const std::string first,
                   Writer(states, place, rules).Write());
  if (place == TextPlace::kWhole) return first;
  return absl::StrCat("(", Literal("\""), " ", first, ")");
}

}  // namespace onegrid::grammar
