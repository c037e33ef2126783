#include "services/model/sentencepiece_reader.h"

#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "services/common/error_info.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {
namespace {

// One field of a message in protobuf's wire format.
struct Field {
  uint64_t number = 0;
  int wire_type = 0;
  uint64_t value = 0;       // varint and fixed types
  absl::string_view bytes;  // length-delimited
};

// Takes the fields of a message one by one. Every length is checked against
// the bytes that are left.
class ProtoReader {
 public:
  explicit ProtoReader(absl::string_view bytes) : left_(bytes) {}

  bool AtEnd() const { return left_.empty(); }

  // False if the bytes are not a field.
  bool Next(Field& field) {
    uint64_t key = 0;
    if (!Varint(key)) return false;
    field.number = key >> 3;
    field.wire_type = static_cast<int>(key & 7);
    switch (field.wire_type) {
      case 0:
        return Varint(field.value);
      case 1:
        return Fixed(8, field.value);
      case 2:
        if (!Varint(field.value) || field.value > left_.size()) return false;
        field.bytes = left_.substr(0, field.value);
        left_.remove_prefix(field.value);
        return true;
      case 5:
        return Fixed(4, field.value);
      default:
        return false;
    }
  }

 private:
  bool Varint(uint64_t& value) {
    value = 0;
    for (int shift = 0; shift < 64 && !left_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(left_[0]);
      left_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool Fixed(size_t size, uint64_t& value) {
    if (left_.size() < size) return false;
    value = 0;
    std::memcpy(&value, left_.data(), size);
    left_.remove_prefix(size);
    return true;
  }

  absl::string_view left_;
};

bool ReadPiece(absl::string_view bytes, VocabularyToken& token) {
  token = {"", 0.0f, TokenType::kNormal};
  ProtoReader reader(bytes);
  Field field;
  while (!reader.AtEnd()) {
    if (!reader.Next(field)) return false;
    if (field.number == 1 && field.wire_type == 2) {
      token.text = std::string(field.bytes);
    } else if (field.number == 2 && field.wire_type == 5) {
      const auto bits = static_cast<uint32_t>(field.value);
      std::memcpy(&token.score, &bits, sizeof(bits));
    } else if (field.number == 3 && field.wire_type == 0) {
      token.type = static_cast<TokenType>(field.value);
    }
  }
  if (token.type == TokenType::kUserDefined) {
    token.text = UnescapeSpaces(token.text);
  }
  return true;
}

constexpr uint64_t kBpe = 2;

// The fields of trainer_spec that matter, with their defaults.
struct Trainer {
  uint64_t model_type = 1;
  int32_t unknown_id = 0;
  int32_t bos_id = 1;
  int32_t eos_id = 2;
  int32_t pad_id = -1;
};

bool ReadTrainer(absl::string_view bytes, Trainer& trainer) {
  ProtoReader reader(bytes);
  Field field;
  while (!reader.AtEnd()) {
    if (!reader.Next(field)) return false;
    if (field.wire_type != 0) continue;
    const auto id = static_cast<int32_t>(field.value);
    if (field.number == 3) trainer.model_type = field.value;
    if (field.number == 40) trainer.unknown_id = id;
    if (field.number == 41) trainer.bos_id = id;
    if (field.number == 42) trainer.eos_id = id;
    if (field.number == 43) trainer.pad_id = id;
  }
  return true;
}

}  // namespace

absl::StatusOr<Vocabulary> VocabularyFromModelProto(absl::string_view bytes,
                                                    const std::string& path) {
  Vocabulary vocabulary;
  Trainer trainer;
  bool has_trainer = false, has_normalizer = false;
  ProtoReader reader(bytes);
  Field field;
  while (!reader.AtEnd()) {
    bool good = reader.Next(field);
    if (good && field.number == 1 && field.wire_type == 2) {
      VocabularyToken token;
      good = ReadPiece(field.bytes, token);
      vocabulary.tokens.push_back(std::move(token));
    } else if (good && field.number == 2 && field.wire_type == 2) {
      good = ReadTrainer(field.bytes, trainer);
      has_trainer = true;
    } else if (good && field.number == 3 && field.wire_type == 2) {
      has_normalizer = true;
    }
    if (!good) {
      return CorruptFile(path,
                         absl::StrCat("not a SentencePiece model, or cut short "
                                      "after ",
                                      vocabulary.tokens.size(), " pieces"));
    }
  }
  // They come last, so a file that is cut between two fields lacks them.
  if (!has_trainer || !has_normalizer) {
    return CorruptFile(
        path, absl::StrCat("not a SentencePiece model, or cut short: no ",
                           has_trainer ? "normalizer_spec" : "trainer_spec",
                           " behind ", vocabulary.tokens.size(), " pieces"));
  }
  if (trainer.model_type != kBpe) {
    return common::MakeError(
        absl::StatusCode::kUnimplemented, "UNSUPPORTED_TOKENIZER",
        absl::StrCat(path, ": a SentencePiece model of type ",
                     trainer.model_type, ", supported: BPE (2)"),
        {{"path", path}});
  }
  RETURN_IF_ERROR(CheckTokens(path, "pieces", vocabulary));
  const auto size = static_cast<int32_t>(vocabulary.tokens.size());
  for (const int32_t id :
       {trainer.unknown_id, trainer.bos_id, trainer.eos_id, trainer.pad_id}) {
    if (id < 0 || id >= size) {
      return CorruptFile(
          path, absl::StrCat("trainer_spec: expected the ids of unk, bos, eos "
                             "and pad below ",
                             size, ", found ", id));
    }
  }
  vocabulary.unknown_id = trainer.unknown_id;
  vocabulary.bos_id = trainer.bos_id;
  vocabulary.eos_id = trainer.eos_id;
  vocabulary.pad_id = trainer.pad_id;
  RETURN_IF_ERROR(CheckUnknown(path, vocabulary));
  return vocabulary;
}

}  // namespace onegrid::model
