#include "services/model/sentencepiece_model.h"

#include <cmath>
#include <cstring>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

constexpr char kEscapedSpace[] = "\xe2\x96\x81";  // U+2581
constexpr char kTokensKey[] = "tokenizer.ggml.tokens";

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

absl::Status CheckKind(const GgufFile& file) {
  ASSIGN_OR_RETURN(const std::string kind,
                   file.GetString("tokenizer.ggml.model"));
  // llama.cpp takes a missing add_space_prefix for true.
  bool space_prefix = true;
  if (file.Has("tokenizer.ggml.add_space_prefix")) {
    ASSIGN_OR_RETURN(space_prefix,
                     file.GetBool("tokenizer.ggml.add_space_prefix"));
  }
  if (kind == "llama" && !space_prefix) return absl::OkStatus();
  const std::string found =
      absl::StrCat(kind, space_prefix ? " with a space prefix" : "");
  return common::MakeError(
      absl::StatusCode::kUnimplemented, "UNSUPPORTED_TOKENIZER",
      absl::StrCat(file.path(), ": unsupported tokenizer: found '", found,
                   "', supported: 'llama' (SentencePiece) without a space "
                   "prefix"),
      {{"path", file.path()}, {"found", found}, {"supported", "llama"}});
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

absl::Status CheckTokens(const std::string& path, absl::string_view list,
                         const Vocabulary& vocabulary) {
  absl::flat_hash_set<absl::string_view> texts;
  bool has_byte[256] = {};
  for (size_t id = 0; id < vocabulary.tokens.size(); ++id) {
    const VocabularyToken& token = vocabulary.tokens[id];
    const std::string where = absl::StrCat(list, "[", id, "]");
    if (token.text.empty()) {
      return CorruptFile(path, absl::StrCat(where, " is empty"));
    }
    if (!texts.insert(token.text).second) {
      return CorruptFile(path,
                         absl::StrCat(where, " has the text of another token"));
    }
    if (!std::isfinite(token.score)) {
      return CorruptFile(path,
                         absl::StrCat(where, ": its score is not finite"));
    }
    const int32_t type = static_cast<int32_t>(token.type);
    if (type < 1 || type > 6) {
      return CorruptFile(path, absl::StrCat(where,
                                            ": expected a token type 1 to 6, "
                                            "found ",
                                            type));
    }
    if (token.type == TokenType::kByte) {
      const int byte = ByteOfToken(token.text);
      if (byte < 0) {
        return CorruptFile(path,
                           absl::StrCat(where,
                                        ": a byte token is not named <0x00> to "
                                        "<0xFF>"));
      }
      has_byte[byte] = true;
    }
  }
  for (int byte = 0; byte < 256; ++byte) {
    if (!has_byte[byte]) {
      return CorruptFile(path,
                         absl::StrCat(list, ": no token for byte ", byte));
    }
  }
  return absl::OkStatus();
}

int ByteOfToken(const std::string& text) {
  if (text.size() != 6 || text.compare(0, 3, "<0x") != 0 || text[5] != '>') {
    return -1;
  }
  int value = 0;
  for (const char c : text.substr(3, 2)) {
    if (c >= '0' && c <= '9') {
      value = value * 16 + (c - '0');
    } else if (c >= 'A' && c <= 'F') {
      value = value * 16 + (c - 'A' + 10);
    } else {
      return -1;
    }
  }
  return value;
}

std::string EscapeSpaces(const std::string& text) {
  return absl::StrReplaceAll(text, {{" ", kEscapedSpace}});
}

std::string UnescapeSpaces(const std::string& text) {
  return absl::StrReplaceAll(text, {{kEscapedSpace, " "}});
}

absl::StatusOr<Vocabulary> VocabularyFromGguf(const GgufFile& file) {
  RETURN_IF_ERROR(CheckKind(file));
  ASSIGN_OR_RETURN(std::vector<std::string> texts, file.GetStrings(kTokensKey));
  ASSIGN_OR_RETURN(const std::vector<float> scores,
                   file.GetF32s("tokenizer.ggml.scores"));
  ASSIGN_OR_RETURN(const std::vector<int32_t> types,
                   file.GetI32s("tokenizer.ggml.token_type"));
  if (scores.size() != texts.size() || types.size() != texts.size()) {
    return CorruptFile(file.path(),
                       absl::StrCat("tokenizer.ggml arrays differ in length: ",
                                    texts.size(), " tokens, ", scores.size(),
                                    " scores, ", types.size(), " token types"));
  }
  Vocabulary vocabulary;
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
  ASSIGN_OR_RETURN(vocabulary.pad_id, TokenId(file, "padding", size));
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
