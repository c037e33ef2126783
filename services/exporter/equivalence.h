// Equivalence level 1: re-reads written artifacts and compares every tensor
// with the checkpoint they were made from.
#ifndef SERVICES_EXPORTER_EQUIVALENCE_H_
#define SERVICES_EXPORTER_EQUIVALENCE_H_

#include <string>

#include "absl/status/status.h"
#include "proto/onegrid/v1/export.pb.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/importer.h"
#include "services/model/adapter.h"

namespace onegrid::exporter {

// Each function opens the artifact afresh, compares what it holds with the
// model or adapter, and adds to `report`: tensors, tensors_bit_exact, and one
// TensorDifference per tensor that is not bit-equal, missing or unexpected.
//
// A status other than OK means that the comparison could not be made: the
// artifact cannot be opened, or `progress` stopped it.

// Linears and embedding by grid, codes and scales; norms by their bytes.
absl::Status CompareMergedGguf(const GridModel& grid, const std::string& path,
                               const ProgressFn& progress,
                               v1::EquivalenceReport* report);

// `folder` holds model.safetensors or its shards. Linears by codes
// (weight_packed), scales (weight_scale) and weight_shape; the embedding by its
// f32 values; norms by whether 1 + w is the base's stored value.
absl::Status CompareCompressedTensors(const GridModel& grid,
                                      const std::string& folder,
                                      const ProgressFn& progress,
                                      v1::EquivalenceReport* report);

// A and B of every linear by their bytes, alpha by its value.
absl::Status CompareLoraGguf(const model::Adapter& adapter,
                             const std::string& path,
                             v1::EquivalenceReport* report);
absl::Status ComparePeft(const model::Adapter& adapter,
                         const std::string& folder,
                         v1::EquivalenceReport* report);

// OK if every difference in the report is one that its format cannot avoid (a
// norm whose w - 1 is not exact in f32); else DATA_LOSS (EQUIVALENCE_FAILED)
// naming the first tensor that differs.
absl::Status RequireEquivalence(const v1::EquivalenceReport& report);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_EQUIVALENCE_H_
