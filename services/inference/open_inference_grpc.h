// inference.GRPCInferenceService over gRPC: one line of logic per rpc.
#ifndef SERVICES_INFERENCE_OPEN_INFERENCE_GRPC_H_
#define SERVICES_INFERENCE_OPEN_INFERENCE_GRPC_H_

#include <map>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"
#include "grpcpp/grpcpp.h"
#include "proto/open_inference/grpc_predict_v2.grpc.pb.h"
#include "services/inference/open_inference_service.h"
#include "services/inference/open_inference_stream.h"

namespace onegrid::inference {

// Thread-safe. A call occupies one of gRPC's threads until it ends, a stream
// one more for each request that runs.
class OpenInferenceGrpc final : public oip::GRPCInferenceService::Service {
 public:
  // `service` must outlive this object.
  explicit OpenInferenceGrpc(OpenInferenceService& service)
      : service_(service) {}

  // The server and its model are no longer ready, there are no new streams, and
  // those that wait for their caller's next request are cancelled, for they
  // could wait as long as the server may drain.
  void Drain();

  grpc::Status ServerLive(grpc::ServerContext* context,
                          const oip::ServerLiveRequest* request,
                          oip::ServerLiveResponse* response) override;
  grpc::Status ServerReady(grpc::ServerContext* context,
                           const oip::ServerReadyRequest* request,
                           oip::ServerReadyResponse* response) override;
  grpc::Status ModelReady(grpc::ServerContext* context,
                          const oip::ModelReadyRequest* request,
                          oip::ModelReadyResponse* response) override;
  grpc::Status ServerMetadata(grpc::ServerContext* context,
                              const oip::ServerMetadataRequest* request,
                              oip::ServerMetadataResponse* response) override;
  grpc::Status ModelMetadata(grpc::ServerContext* context,
                             const oip::ModelMetadataRequest* request,
                             oip::ModelMetadataResponse* response) override;
  grpc::Status ModelInfer(grpc::ServerContext* context,
                          const oip::ModelInferRequest* request,
                          oip::ModelInferResponse* response) override;
  grpc::Status ModelStreamInfer(
      grpc::ServerContext* context,
      grpc::ServerReaderWriter<oip::ModelStreamInferResponse,
                               oip::ModelInferRequest>* stream) override;
  grpc::Status ModelConfig(grpc::ServerContext* context,
                           const oip::ModelConfigRequest* request,
                           oip::ModelConfigResponse* response) override;
  grpc::Status ModelStatistics(grpc::ServerContext* context,
                               const oip::ModelStatisticsRequest* request,
                               oip::ModelStatisticsResponse* response) override;
  grpc::Status RepositoryIndex(grpc::ServerContext* context,
                               const oip::RepositoryIndexRequest* request,
                               oip::RepositoryIndexResponse* response) override;

 private:
  OpenInferenceService& service_;

  absl::Mutex mu_;
  bool draining_ ABSL_GUARDED_BY(mu_) = false;
  std::map<OpenInferenceStream*, grpc::ServerContext*> streams_
      ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_OPEN_INFERENCE_GRPC_H_
