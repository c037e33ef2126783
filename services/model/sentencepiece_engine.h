#ifndef SERVICES_MODEL_SENTENCEPIECE_ENGINE_H_
#define SERVICES_MODEL_SENTENCEPIECE_ENGINE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace sentencepiece {
class SentencePieceProcessor;
}  // namespace sentencepiece

namespace onegrid::model {

// The SentencePiece library behind standard types only: its header declares an
// absl::string_view of its own, so no file may include it together with Abseil.
// Thread-safe.
class SentencePieceEngine {
 public:
  // serialized_model: a sentencepiece.ModelProto. Returns nullptr and sets
  // *error if the library refuses it.
  static std::unique_ptr<SentencePieceEngine> Load(
      std::string_view serialized_model, std::string* error);
  ~SentencePieceEngine();

  // Appends the ids of `text`, which is UTF-8.
  void Encode(std::string_view text, std::vector<int32_t>* ids) const;

 private:
  SentencePieceEngine();
  const std::unique_ptr<sentencepiece::SentencePieceProcessor> processor_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SENTENCEPIECE_ENGINE_H_
