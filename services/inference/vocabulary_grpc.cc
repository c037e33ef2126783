#include "services/inference/vocabulary_grpc.h"

#include <cstdint>

namespace onegrid::inference {

grpc::Status VocabularyGrpc::GetVocabulary(grpc::ServerContext*,
                                           const v1::GetVocabularyRequest*,
                                           v1::Vocabulary* response) {
  response->set_artifact_sha256(artifact_sha256_);
  const auto size = static_cast<int32_t>(tokenizer_.vocab_size());
  response->mutable_texts()->Reserve(size);
  for (int32_t id = 0; id < size; ++id) {
    const std::string piece = tokenizer_.Piece(id);
    response->add_texts(piece.empty() ? tokenizer_.Name(id) : piece);
    if (piece.empty()) response->add_control_ids(id);
  }
  return grpc::Status::OK;
}

}  // namespace onegrid::inference
