// Writes a tuned model as a Hugging Face folder in the compressed-tensors
// format "pack-quantized": what transformers and vLLM load.
#ifndef SERVICES_EXPORTER_CT_EXPORT_H_
#define SERVICES_EXPORTER_CT_EXPORT_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/exporter/grid_model.h"
#include "services/exporter/importer.h"

namespace onegrid::exporter {

// What save_pretrained of transformers 5.23 takes for max_shard_size.
inline constexpr int64_t kCtShardBytesDefault = 50'000'000'000;

// Writes into the existing `folder` and returns the names of the files made:
//   model.safetensors  or shards and their index if the tensors take more than
//       max_shard_bytes (see SafetensorsWriter::WriteShards); per linear X on a
//       grid of b bits in groups of g: X.weight_packed I32 [out, in b / 32],
//       X.weight_scale F32 [out, in / g], X.weight_shape I64 [2]; the embedding
//       F32 (see below); norms F32, minus the 1 that the architecture's forward
//       adds. The scales would fit BF16, but a loader that dequantizes while it
//       loads multiplies in the scale's type, and code * scale has up to 15
//       significant bits
//   config.json        with quantization_config: one config group for each
//       grid, its targets regular expressions on module names ("Linear" if
//       there is one grid only); dtype float32, in which code * scale is exact
//   generation_config.json and the tokenizer's files.
// Each file is written atomically. Holds one tensor in memory.
//
// The embedding is dequantized whatever its grid: compressed-tensors 0.20 has
// quantized embeddings, but transformers 5.23 cannot load one that is tied to
// the head. With more than one config group transformers 5.23 loads the weights
// as they are, but not with dequantize=True: that decodes every layer by the
// first group. The group of the most bits therefore comes first: then the words
// of the others are too few and it stops with an error (with 4 bits before 8 it
// took half of the 8-bit words and said nothing).
absl::StatusOr<std::vector<std::string>> WriteCompressedTensors(
    const GridModel& grid, const std::string& folder, int64_t max_shard_bytes,
    const ProgressFn& progress);

}  // namespace onegrid::exporter

#endif  // SERVICES_EXPORTER_CT_EXPORT_H_
