#include "services/model/special_tokens.h"

#include <algorithm>
#include <set>
#include <utility>

namespace onegrid::model {
namespace {

constexpr char kToolResponse[] = "<|tool_response>";

uint8_t ByteAt(absl::string_view text, size_t i) {
  return static_cast<uint8_t>(text[i]);
}

uint32_t PairAt(absl::string_view text, size_t i) {
  return static_cast<uint32_t>(ByteAt(text, i)) << 8 | ByteAt(text, i + 1);
}

// llama.cpp takes tokens of these names for control tokens whatever the file
// says; Gemma 3's files call </s>, the HTML tag, user-defined.
bool IsEndMarker(const Vocabulary& vocabulary, absl::string_view text) {
  return vocabulary.kind == TokenizerKind::kScores &&
         (text == "</s>" || EndsGeneration(text));
}

// Appends `plain` to out, cut at each occurrence of `special`.
void CutPlain(absl::string_view plain, absl::string_view special, int32_t id,
              std::vector<SpecialTokens::Fragment>* out) {
  for (;;) {
    const size_t at = plain.find(special);
    if (at == absl::string_view::npos) break;
    if (at > 0) out->push_back({plain.substr(0, at), -1});
    out->push_back({plain.substr(at, special.size()), id});
    plain.remove_prefix(at + special.size());
  }
  if (!plain.empty()) out->push_back({plain, -1});
}

}  // namespace

bool EndsGeneration(absl::string_view name) {
  return name == "<eos>" || name == "<end_of_turn>" || name == "<turn|>" ||
         name == kToolResponse;
}

void SetTypesByName(Vocabulary* vocabulary) {
  if (vocabulary->kind == TokenizerKind::kScores) return;
  bool has_tools = false;
  for (VocabularyToken& token : vocabulary->tokens) {
    if (EndsGeneration(token.text)) token.type = TokenType::kControl;
    has_tools |= token.text == kToolResponse;
  }
  for (VocabularyToken& token : vocabulary->tokens) {
    if (token.text != "</s>") continue;
    token.type = has_tools ? TokenType::kNormal : TokenType::kControl;
  }
}

SpecialTokens::SpecialTokens(const Vocabulary& vocabulary) {
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const VocabularyToken& token = vocabulary.tokens[id];
    const bool is_control = token.type == TokenType::kControl ||
                            token.type == TokenType::kUnknown ||
                            IsEndMarker(vocabulary, token.text);
    if (!is_control && token.type != TokenType::kUserDefined) continue;
    specials_.push_back({token.text, static_cast<int32_t>(id), is_control});
  }
  std::stable_sort(specials_.begin(), specials_.end(),
                   [](const Special& a, const Special& b) {
                     return a.text.size() > b.text.size();
                   });
  std::set<size_t> lengths[256];
  for (size_t i = 0; i < specials_.size(); ++i) {
    const std::string& text = specials_[i].text;
    by_text_.emplace(text, i);
    lengths[ByteAt(text, 0)].insert(text.size());
    if (text.size() == 1) {
      single_bytes_.set(ByteAt(text, 0));
    } else {
      byte_pairs_.set(PairAt(text, 0));
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    lengths_[byte].assign(lengths[byte].begin(), lengths[byte].end());
  }
}

std::vector<size_t> SpecialTokens::Present(absl::string_view text,
                                           bool parse_control) const {
  absl::flat_hash_set<size_t> found;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool pair = i + 1 < text.size() && byte_pairs_.test(PairAt(text, i));
    if (!pair && !single_bytes_.test(ByteAt(text, i))) continue;
    for (const size_t length : lengths_[ByteAt(text, i)]) {
      if (length > text.size() - i || (length > 1 && !pair)) break;
      const auto it = by_text_.find(text.substr(i, length));
      if (it == by_text_.end()) continue;
      if (specials_[it->second].is_control && !parse_control) continue;
      found.insert(it->second);
    }
  }
  std::vector<size_t> order(found.begin(), found.end());
  std::sort(order.begin(), order.end());
  return order;
}

std::vector<SpecialTokens::Fragment> SpecialTokens::Split(
    absl::string_view text, bool parse_control) const {
  std::vector<Fragment> fragments;
  if (!text.empty()) fragments.push_back({text, -1});
  for (const size_t index : Present(text, parse_control)) {
    std::vector<Fragment> next;
    next.reserve(fragments.size() + 2);
    for (const Fragment& fragment : fragments) {
      if (fragment.id >= 0) {
        next.push_back(fragment);
      } else {
        CutPlain(fragment.text, specials_[index].text, specials_[index].id,
                 &next);
      }
    }
    fragments = std::move(next);
  }
  return fragments;
}

}  // namespace onegrid::model
