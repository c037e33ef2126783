#include "services/model/sentencepiece_engine.h"

#include <sentencepiece_processor.h>

namespace onegrid::model {

SentencePieceEngine::SentencePieceEngine()
    : processor_(std::make_unique<sentencepiece::SentencePieceProcessor>()) {}

SentencePieceEngine::~SentencePieceEngine() = default;

std::unique_ptr<SentencePieceEngine> SentencePieceEngine::Load(
    std::string_view serialized_model, std::string* error) {
  std::unique_ptr<SentencePieceEngine> engine(new SentencePieceEngine());
  const sentencepiece::util::Status status =
      engine->processor_->LoadFromSerializedProto(serialized_model);
  if (!status.ok()) {
    *error = status.ToString();
    return nullptr;
  }
  return engine;
}

void SentencePieceEngine::Encode(std::string_view text,
                                 std::vector<int32_t>* ids) const {
  const std::vector<int> part = processor_->EncodeAsIds(text);
  ids->insert(ids->end(), part.begin(), part.end());
}

}  // namespace onegrid::model
