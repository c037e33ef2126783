// onegrid.v1.VocabularyService over gRPC.
#ifndef SERVICES_INFERENCE_VOCABULARY_GRPC_H_
#define SERVICES_INFERENCE_VOCABULARY_GRPC_H_

#include <string>
#include <utility>

#include "grpcpp/grpcpp.h"
#include "proto/onegrid/v1/vocabulary.grpc.pb.h"
#include "services/model/tokenizer.h"

namespace onegrid::inference {

// Thread-safe. A call goes over all tokens; none of the answer is kept.
class VocabularyGrpc final : public v1::VocabularyService::Service {
 public:
  // `tokenizer` must outlive this object.
  VocabularyGrpc(const model::Tokenizer& tokenizer, std::string artifact_sha256)
      : tokenizer_(tokenizer), artifact_sha256_(std::move(artifact_sha256)) {}

  grpc::Status GetVocabulary(grpc::ServerContext*,
                             const v1::GetVocabularyRequest*,
                             v1::Vocabulary* response) override;

 private:
  const model::Tokenizer& tokenizer_;
  const std::string artifact_sha256_;
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_VOCABULARY_GRPC_H_
