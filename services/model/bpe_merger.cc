#include "services/model/bpe_merger.h"

#include <queue>
#include <string>

namespace onegrid::model {
namespace {

// Bytes of the character that starts with `lead`, in valid UTF-8.
size_t CharacterBytes(char lead) {
  const uint8_t byte = static_cast<uint8_t>(lead);
  if (byte < 0x80) return 1;
  if (byte < 0xE0) return 2;
  return byte < 0xF0 ? 3 : 4;
}

}  // namespace

// A part of the text, in a doubly linked list. Merging makes the left one
// longer and the right one empty.
struct BpeMerger::Symbol {
  absl::string_view text;
  int previous;
  int next;
};

// Two neighbours whose joined text, `bytes` long, is a token. Stale once one of
// them was merged with another.
struct BpeMerger::Pair {
  float score;
  int left;
  int right;
  size_t bytes;

  // For a heap whose top is the highest score, then the leftmost.
  bool operator<(const Pair& other) const {
    if (score != other.score) return score < other.score;
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
}

void BpeMerger::AppendIds(absl::string_view symbol,
                          std::vector<int32_t>* ids) const {
  const auto found = ids_.find(symbol);
  if (found != ids_.end()) {
    ids->push_back(found->second);
    return;
  }
  for (const char byte : symbol) {
    ids->push_back(byte_ids_[static_cast<uint8_t>(byte)]);
  }
}

void BpeMerger::Encode(absl::string_view text,
                       std::vector<int32_t>* ids) const {
  const std::string escaped = EscapeSpaces(std::string(text));
  std::vector<Symbol> symbols;
  for (absl::string_view rest = escaped; !rest.empty();) {
    const int index = static_cast<int>(symbols.size());
    const absl::string_view character = rest.substr(0, CharacterBytes(rest[0]));
    symbols.push_back({character, index - 1, index + 1});
    rest.remove_prefix(character.size());
  }
  if (symbols.empty()) return;
  symbols.back().next = -1;

  std::priority_queue<Pair> pairs;
  const auto consider = [&](int left, int right) {
    if (left < 0 || right < 0) return;
    const size_t bytes = symbols[left].text.size() + symbols[right].text.size();
    const auto found =
        ids_.find(absl::string_view(symbols[left].text.data(), bytes));
    if (found == ids_.end()) return;
    pairs.push({vocabulary_.tokens[found->second].score, left, right, bytes});
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
    right.text = {};
    left.next = right.next;
    if (right.next >= 0) symbols[right.next].previous = pair.left;
    consider(left.previous, pair.left);
    consider(pair.left, left.next);
  }
  for (int i = 0; i >= 0; i = symbols[i].next) AppendIds(symbols[i].text, ids);
}

}  // namespace onegrid::model
