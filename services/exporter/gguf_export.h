// Writes a tuned model as GGUF files that llama.cpp loads.
#ifndef SERVICES_EXPORTER_GGUF_EXPORT_H_
#define SERVICES_EXPORTER_GGUF_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/importer.h"
#include "services/model/adapter.h"

namespace onegrid::exporter {

// Writes the base GGUF with the model's tensors in place of its own: int4_g32
// as Q4_0, int2_g64 as Q2_0, int8_g32 as Q8_0, norms as F32. general.file_type
// is that of the type that holds most weights of the linears; every other
// metadata value is the base's. The files are folder/model.gguf or shards of it
// (see GgufWriter::WriteShards); their names are returned. Errors: those of
// GridModel::Linear and Embedding and of the writer.
absl::StatusOr<std::vector<std::string>> WriteMergedGguf(
    const GridModel& grid, const std::string& folder, int64_t max_shard_bytes,
    const ProgressFn& progress);

// Writes the adapter for llama.cpp: general.type "adapter", adapter.type
// "lora", adapter.lora.alpha, and per linear N the F32 pair N.lora_a (ggml
// dims [in, r]) and N.lora_b ([r, out]). llama.cpp scales B A x by alpha / r;
// what differs from that is in B (model::Adapter::GgufB). Atomic.
absl::Status WriteLoraGguf(const GridModel& grid, const model::Adapter& adapter,
                           const std::string& base_name,
                           const std::string& path);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_GGUF_EXPORT_H_
