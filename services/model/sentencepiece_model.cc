#include "services/model/sentencepiece_model.h"

#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"
#include "services/model/merge_list.h"

namespace onegrid::model {
namespace {

constexpr char kSuppressed[] = "tokenizer.ggml.suppress_tokens";

constexpr char kTokensKey[] = "tokenizer.ggml.tokens";
constexpr char kMergesKey[] = "tokenizer.ggml.merges";

// Writes protobuf fields in the wire format.
class ProtoWriter {
 public:
  void Varint(int field, uint64_t value) {
    Raw(static_cast<uint64_t>(field) << 3);
    Raw(value);
  }
  void Float(int field, float value) {
    Raw(static_cast<uint64_t>(field) << 3 | 5);
    char bytes[4];
    std::memcpy(bytes, &value, 4);
    out_.append(bytes, 4);
  }
  void Bytes(int field, absl::string_view value) {
    Raw(static_cast<uint64_t>(field) << 3 | 2);
    Raw(value.size());
    out_.append(value.data(), value.size());
  }
  std::string Take() { return std::move(out_); }

 private:
  void Raw(uint64_t value) {
    for (; value >= 0x80; value >>= 7) {
      out_ += static_cast<char>(value | 0x80);
    }
    out_ += static_cast<char>(value);
  }
  std::string out_;
};

absl::StatusOr<int32_t> TokenId(const GgufFile& file, const char* name,
                                size_t vocab_size) {
  const std::string key = absl::StrCat("tokenizer.ggml.", name, "_token_id");
  ASSIGN_OR_RETURN(const uint32_t id, file.GetU32(key));
  if (id >= vocab_size) {
    return CorruptFile(
        file.path(), absl::StrCat(key, ": expected a token below ", vocab_size,
                                  ", found ", id));
  }
  return static_cast<int32_t>(id);
}

absl::StatusOr<TokenizerKind> KindOf(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string kind,
                   file.GetString("tokenizer.ggml.model"));
  if (kind == "gemma4") return TokenizerKind::kMerges;  // Never has a prefix.
  // llama.cpp takes a missing add_space_prefix for true.
  bool space_prefix = true;
  if (file.Has("tokenizer.ggml.add_space_prefix")) {
    ASSIGN_OR_RETURN(space_prefix,
                     file.GetBool("tokenizer.ggml.add_space_prefix"));
  }
  if (kind == "llama" && !space_prefix) return TokenizerKind::kScores;
  const std::string found =
      absl::StrCat(kind, space_prefix ? " with a space prefix" : "");
  return common::MakeError(
      absl::StatusCode::kUnimplemented, "UNSUPPORTED_TOKENIZER",
      absl::StrCat(file.path(), ": unsupported tokenizer: found '", found,
                   "', supported: 'llama' (SentencePiece) without a space "
                   "prefix, 'gemma4'"),
      {{"path", file.path()}, {"found", found}, {"supported", "llama,gemma4"}});
}

std::string SerializePiece(const VocabularyToken& token, bool is_unknown) {
  // GGUF files call <unk> a control token; the library needs it by its role.
  const TokenType type = is_unknown ? TokenType::kUnknown : token.type;
  ProtoWriter piece;
  piece.Bytes(1, type == TokenType::kUserDefined ? EscapeSpaces(token.text)
                                                 : token.text);
  piece.Float(2, token.score);
  piece.Varint(3, static_cast<uint64_t>(type));
  return piece.Take();
}

}  // namespace

absl::StatusOr<Vocabulary> VocabularyFromGguf(const GgufFile& file) {
  Vocabulary vocabulary;
  ASSIGN_OR_RETURN(vocabulary.kind, KindOf(file));
  ASSIGN_OR_RETURN(std::vector<std::string> texts, file.GetStrings(kTokensKey));
  std::vector<float> scores(texts.size(), kNoScore);
  if (vocabulary.kind == TokenizerKind::kScores) {
    ASSIGN_OR_RETURN(scores, file.GetF32s("tokenizer.ggml.scores"));
  }
  ASSIGN_OR_RETURN(const std::vector<int32_t> types,
                   file.GetI32s("tokenizer.ggml.token_type"));
  if (scores.size() != texts.size() || types.size() != texts.size()) {
    return CorruptFile(file.path(),
                       absl::StrCat("tokenizer.ggml arrays differ in length: ",
                                    texts.size(), " tokens, ", scores.size(),
                                    " scores, ", types.size(), " token types"));
  }
  vocabulary.tokens.reserve(texts.size());
  for (size_t i = 0; i < texts.size(); ++i) {
    vocabulary.tokens.push_back(
        {std::move(texts[i]), scores[i], static_cast<TokenType>(types[i])});
  }
  RETURN_IF_ERROR(CheckTokens(file.path(), kTokensKey, vocabulary));
  const size_t size = vocabulary.tokens.size();
  ASSIGN_OR_RETURN(vocabulary.bos_id, TokenId(file, "bos", size));
  ASSIGN_OR_RETURN(vocabulary.eos_id, TokenId(file, "eos", size));
  ASSIGN_OR_RETURN(vocabulary.unknown_id, TokenId(file, "unknown", size));
  RETURN_IF_ERROR(CheckUnknown(file.path(), vocabulary));
  ASSIGN_OR_RETURN(vocabulary.pad_id, TokenId(file, "padding", size));
  if (file.Has(kSuppressed)) {
    ASSIGN_OR_RETURN(vocabulary.suppressed, file.GetI32s(kSuppressed));
    for (const int32_t id : vocabulary.suppressed) {
      if (id >= 0 && static_cast<size_t>(id) < size) continue;
      return CorruptFile(file.path(),
                         absl::StrCat(kSuppressed, ": expected tokens below ",
                                      size, ", found ", id));
    }
  }
  if (vocabulary.kind == TokenizerKind::kScores) return vocabulary;
  if (file.Has("tokenizer.ggml.mask_token_id")) {
    ASSIGN_OR_RETURN(vocabulary.mask_id, TokenId(file, "mask", size));
  }
  ASSIGN_OR_RETURN(const std::vector<std::string> lines,
                   file.GetStrings(kMergesKey));
  RETURN_IF_ERROR(
      ResolveMergeLines(file.path(), kMergesKey, lines, &vocabulary));
  return vocabulary;
}

std::string SerializeModelProto(const Vocabulary& vocabulary) {
  const auto text = [&](int32_t id) -> const std::string& {
    return vocabulary.tokens[id].text;
  };
  ProtoWriter model;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    const bool is_unknown = static_cast<int32_t>(i) == vocabulary.unknown_id;
    model.Bytes(1, SerializePiece(vocabulary.tokens[i], is_unknown));
  }
  ProtoWriter trainer;
  trainer.Varint(3, 2);  // model_type = BPE
  trainer.Varint(4, vocabulary.tokens.size());
  trainer.Varint(35, 1);  // byte_fallback
  trainer.Varint(40, vocabulary.unknown_id);
  trainer.Varint(41, vocabulary.bos_id);
  trainer.Varint(42, vocabulary.eos_id);
  trainer.Varint(43, vocabulary.pad_id);
  trainer.Bytes(45, text(vocabulary.unknown_id));
  trainer.Bytes(46, text(vocabulary.bos_id));
  trainer.Bytes(47, text(vocabulary.eos_id));
  trainer.Bytes(48, text(vocabulary.pad_id));
  model.Bytes(2, trainer.Take());
  ProtoWriter normalizer;
  normalizer.Bytes(1, "identity");
  normalizer.Varint(3, 0);  // add_dummy_prefix
  normalizer.Varint(4, 0);  // remove_extra_whitespaces
  normalizer.Varint(5, 1);  // escape_whitespaces
  model.Bytes(3, normalizer.Take());
  return model.Take();
}

}  // namespace onegrid::model
