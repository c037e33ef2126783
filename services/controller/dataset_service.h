// Registers datasets after reading every line of them. Thread-safe.
#ifndef SERVICES_CONTROLLER_DATASET_SERVICE_H_
#define SERVICES_CONTROLLER_DATASET_SERVICE_H_

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/onegrid/v1/dataset.pb.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of DatasetService; errors as in dataset.proto.
class DatasetService {
 public:
  explicit DatasetService(const ControllerContext* context)
      : context_(context) {}

  absl::StatusOr<v1::Dataset> CreateDataset(
      const v1::CreateDatasetRequest& request);
  absl::StatusOr<v1::Dataset> GetDataset(const v1::GetDatasetRequest& request);
  absl::StatusOr<v1::ListDatasetsResponse> ListDatasets(
      const v1::ListDatasetsRequest& request);
  absl::StatusOr<v1::DeleteDatasetResponse> DeleteDataset(
      const v1::DeleteDatasetRequest& request);

 private:
  // Fills all of `info` but its artifact. `dataset` says how to read.
  absl::Status ReadSplit(const char* split, const v1::Dataset& dataset,
                         v1::DatasetSplit* info);

  const ControllerContext* context_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_DATASET_SERVICE_H_
