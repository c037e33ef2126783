#include "services/inference/vocabulary_grpc.h"

#include <cstdint>

namespace onegrid::inference {

v1::Vocabulary MakeVocabulary(const model::Tokenizer& tokenizer,
                              const std::string& artifact_sha256) {
  v1::Vocabulary vocabulary;
  vocabulary.set_artifact_sha256(artifact_sha256);
  const auto size = static_cast<int32_t>(tokenizer.vocab_size());
  vocabulary.mutable_texts()->Reserve(size);
  for (int32_t id = 0; id < size; ++id) {
    const std::string piece = tokenizer.Piece(id);
    vocabulary.add_texts(piece.empty() ? tokenizer.Name(id) : piece);
    if (piece.empty()) vocabulary.add_control_ids(id);
  }
  return vocabulary;
}

grpc::Status VocabularyGrpc::GetVocabulary(grpc::ServerContext*,
                                           const v1::GetVocabularyRequest*,
                                           v1::Vocabulary* response) {
  const ModelSlot::Handle model = model_.Get();
  *response = MakeVocabulary(model->tokenizer(),
                             model->service().info().artifact_sha256());
  return grpc::Status::OK;
}

}  // namespace onegrid::inference
