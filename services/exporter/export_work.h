// The exporter's work items: what a worker does between Fetch and Publish.
#ifndef SERVICES_EXPORTER_EXPORT_WORK_H_
#define SERVICES_EXPORTER_EXPORT_WORK_H_

#include "absl/status/statusor.h"
#include "proto/onegrid/v1/worker.pb.h"
#include "services/common/worker.h"

namespace onegrid::exporter {

// Does one IMPORT or EXPORT work item with up to `threads` threads. The
// result has BaseModel.model and .report, or Export.artifacts and
// .equivalence. Nothing is published unless level 1 holds. ABORTED when the
// context is cancelled; other errors are those of ImportGguf, ExportFiles and
// the context.
absl::StatusOr<v1::WorkResult> HandleWork(common::WorkContext& context,
                                          int threads);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_EXPORT_WORK_H_
