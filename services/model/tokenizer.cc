#include "services/model/tokenizer.h"

#include <utility>

#include "services/common/error_info.h"
#include "services/model/sentencepiece_model.h"

namespace onegrid::model {
namespace {

Vocabulary TypedByName(Vocabulary vocabulary) {
  SetTypesByName(&vocabulary);
  return vocabulary;
}

}  // namespace

Tokenizer::Tokenizer(Vocabulary vocabulary)
    : vocabulary_(TypedByName(std::move(vocabulary))),
      specials_(vocabulary_),
      merger_(vocabulary_) {
  end_of_generation_.insert(vocabulary_.eos_id);
  for (int64_t id = 0; id < vocab_size(); ++id) {
    if (EndsGeneration(vocabulary_.tokens[id].text)) {
      end_of_generation_.insert(static_cast<int32_t>(id));
    }
  }
}

absl::StatusOr<std::unique_ptr<Tokenizer>> Tokenizer::FromGguf(
    const GgufFile& file) {
  ASSIGN_OR_RETURN(Vocabulary vocabulary, VocabularyFromGguf(file));
  return std::make_unique<Tokenizer>(std::move(vocabulary));
}

std::vector<int32_t> Tokenizer::Encode(absl::string_view text, bool add_bos,
                                       bool parse_control) const {
  std::vector<int32_t> ids;
  if (add_bos) ids.push_back(bos());
  for (const SpecialTokens::Fragment& fragment :
       specials_.Split(text, parse_control)) {
    if (fragment.id >= 0) {
      ids.push_back(fragment.id);
    } else {
      merger_.Encode(fragment.text, &ids);
    }
  }
  return ids;
}

std::string Tokenizer::Decode(absl::Span<const int32_t> ids) const {
  std::string text;
  for (const int32_t id : ids) text += Piece(id);
  return text;
}

std::string Tokenizer::Piece(int32_t id) const {
  if (id < 0 || id >= vocab_size()) return "";
  const VocabularyToken& token = vocabulary_.tokens[id];
  switch (token.type) {
    case TokenType::kNormal:
    case TokenType::kUnused:
      return UnescapeSpaces(token.text);
    case TokenType::kByte:
      return std::string(1, static_cast<char>(ByteOfToken(token.text)));
    case TokenType::kUserDefined:
      return token.text;
    case TokenType::kControl:
    case TokenType::kUnknown:
      return "";
  }
  return "";
}

const std::string& Tokenizer::Name(int32_t id) const {
  static const std::string* const kNone = new std::string();
  if (id < 0 || id >= vocab_size()) return *kNone;
  return vocabulary_.tokens[id].text;
}

}  // namespace onegrid::model
