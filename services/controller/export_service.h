// Queues exports. Thread-safe.
#ifndef SERVICES_CONTROLLER_EXPORT_SERVICE_H_
#define SERVICES_CONTROLLER_EXPORT_SERVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/export.pb.h"
#include "services/controller/registry.h"

namespace onegrid::controller {

// Logic of ExportService; errors as in export.proto.
class ExportService {
 public:
  explicit ExportService(const ControllerContext* context)
      : context_(context) {}

  // `parent` is the pipeline run that asks, or empty.
  absl::StatusOr<v1::Export> CreateExport(
      const v1::CreateExportRequest& request, const std::string& parent = "");
  absl::StatusOr<v1::Export> GetExport(const v1::GetExportRequest& request);
  absl::StatusOr<v1::ListExportsResponse> ListExports(
      const v1::ListExportsRequest& request);

 private:
  const ControllerContext* context_;
};

}  // namespace onegrid::controller

#endif  // SERVICES_CONTROLLER_EXPORT_SERVICE_H_
