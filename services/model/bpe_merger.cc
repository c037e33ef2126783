#include "services/model/bpe_merger.h"

#include <algorithm>
#include <queue>
#include <string>

#include "services/model/utf8.h"

namespace onegrid::model {
namespace {

// Bytes of the character that starts with `lead`, as llama.cpp counts them: a
// byte that starts none is a character of its own.
size_t CharacterBytes(char lead) {
  const uint8_t byte = static_cast<uint8_t>(lead);
  if (byte < 0xC0) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

}  // namespace

// A part of the text, in a doubly linked list. Merging makes the left one
// longer and the right one empty.
struct BpeMerger::Symbol {
  absl::string_view text;
  int32_t id;  // -1: no token
  int previous;
  int next;
};

// Two neighbours whose joined text, `bytes` long, is a token. Stale once one of
// them was merged with another.
struct BpeMerger::Pair {
  double priority;  // holds every float and every rank
  int left;
  int right;
  size_t bytes;
  int32_t joined;

  // For a heap whose top is the highest priority, then the leftmost.
  bool operator<(const Pair& other) const {
    if (priority != other.priority) return priority < other.priority;
    return left > other.left;
  }
};

BpeMerger::BpeMerger(const Vocabulary& vocabulary) : vocabulary_(vocabulary) {
  ids_.reserve(vocabulary.tokens.size());
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const VocabularyToken& token = vocabulary.tokens[i];
    const int32_t id = static_cast<int32_t>(i);
    if (token.type == TokenType::kByte) {
      byte_ids_[ByteOfToken(token.text)] = id;
    } else if (id != vocabulary.unknown_id) {
      ids_.emplace(token.text, id);
    }
  }
  merges_.reserve(vocabulary.merges.size());
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    const VocabularyMerge& merge = vocabulary.merges[i];
    merges_.emplace(std::make_pair(merge.left, merge.right),
                    Merge{static_cast<int32_t>(i), merge.joined});
  }
}

int32_t BpeMerger::IdOf(absl::string_view text) const {
  const auto found = ids_.find(text);
  return found == ids_.end() ? -1 : found->second;
}

bool BpeMerger::Join(const Symbol& left, const Symbol& right,
                     Pair* pair) const {
  pair->bytes = left.text.size() + right.text.size();
  if (vocabulary_.kind == TokenizerKind::kScores) {
    pair->joined = IdOf(absl::string_view(left.text.data(), pair->bytes));
    if (pair->joined < 0) return false;
    pair->priority = vocabulary_.tokens[pair->joined].score;
    return true;
  }
  const auto found = merges_.find(std::make_pair(left.id, right.id));
  if (found == merges_.end()) return false;
  pair->joined = found->second.joined;
  pair->priority = -static_cast<double>(found->second.rank);
  return true;
}

void BpeMerger::Encode(absl::string_view text,
                       std::vector<int32_t>* ids) const {
  if (vocabulary_.kind == TokenizerKind::kScores) {
    EncodeEscaped(EscapeSpaces(std::string(text)), ids);
    return;
  }
  const std::string escaped = EscapeSpaces(ReplaceInvalidUtf8(text));
  for (absl::string_view rest = escaped; !rest.empty();) {
    const bool newlines = rest[0] == '\n';
    const size_t end =
        newlines ? rest.find_first_not_of('\n') : rest.find('\n');
    const absl::string_view run = rest.substr(0, end);
    const int32_t id = newlines ? IdOf(run) : -1;
    if (id >= 0) {
      ids->push_back(id);
    } else {
      EncodeEscaped(run, ids);
    }
    rest.remove_prefix(run.size());
  }
}

void BpeMerger::EncodeEscaped(absl::string_view text,
                              std::vector<int32_t>* ids) const {
  std::vector<Symbol> symbols;
  for (absl::string_view rest = text; !rest.empty();) {
    const int index = static_cast<int>(symbols.size());
    const absl::string_view character = rest.substr(0, CharacterBytes(rest[0]));
    symbols.push_back({character, IdOf(character), index - 1, index + 1});
    rest.remove_prefix(character.size());
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  std::priority_queue<Pair> pairs;
  const auto consider = [&](int left, int right) {
    if (left < 0 || right < 0) return;
    Pair pair{0, left, right, 0, -1};
    if (Join(symbols[left], symbols[right], &pair)) pairs.push(pair);
  };
  for (size_t i = 1; i < symbols.size(); ++i) {
    consider(static_cast<int>(i) - 1, static_cast<int>(i));
  }
  while (!pairs.empty()) {
    const Pair pair = pairs.top();
    pairs.pop();
    Symbol& left = symbols[pair.left];
    Symbol& right = symbols[pair.right];
    // An empty right part makes the sum too short, a grown one too long.
    if (left.text.empty() || right.text.empty() ||
        left.text.size() + right.text.size() != pair.bytes) {
      continue;
    }
    left.text = absl::string_view(left.text.data(), pair.bytes);
    left.id = pair.joined;
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = pair.left;
    consider(left.previous, pair.left);
    consider(pair.left, left.next);
  }
  for (int i = 0; i >= 0; i = symbols[i].next) {
    if (symbols[i].id >= 0) {
      ids->push_back(symbols[i].id);
      continue;
    }
    for (const char byte : symbols[i].text) {
      ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
    }
  }
}

}  // namespace onegrid::model
