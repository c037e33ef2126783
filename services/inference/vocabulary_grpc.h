// onegrid.v1.VocabularyService over gRPC.
#ifndef SERVICES_INFERENCE_VOCABULARY_GRPC_H_
#define SERVICES_INFERENCE_VOCABULARY_GRPC_H_

#include <string>

#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/vocabulary.grpc.pb.h"
#include "services/inference/model_slot.h"
#include "services/model/tokenizer.h"

namespace onegrid::inference {

// Goes over all tokens.
v1::Vocabulary MakeVocabulary(const model::Tokenizer& tokenizer,
                              const std::string& artifact_sha256);

// Thread-safe. None of an answer is kept.
class VocabularyGrpc final : public v1::VocabularyService::Service {
 public:
  // `model` must outlive this object.
  explicit VocabularyGrpc(ModelSlot& model) : model_(model) {}

  grpc::Status GetVocabulary(grpc::ServerContext*,
                             const v1::GetVocabularyRequest*,
                             v1::Vocabulary* response) override;

 private:
  ModelSlot& model_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_VOCABULARY_GRPC_H_
