// How a model's tensors are spread over several files, for every format.
#ifndef SERVICES_MODEL_SHARD_PLAN_H_
#define SERVICES_MODEL_SHARD_PLAN_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/model/atomic_file.h"

namespace onegrid::model {

// A writer holds all its shards open until the last one is complete.
inline constexpr int64_t kShardsMax = 512;

// Index of the first tensor of each shard, when tensors of these bytes, in this
// order, fill shards of `max_bytes`; a larger tensor has a shard of its own.
// Only tensors are counted, as llama.cpp's gguf-split and transformers do: a
// file is larger by its tables and, the first of a GGUF, by its metadata.
// max_bytes 0: one shard, as for no tensors.
// InvalidArgument (INVALID_SHARD_SIZE): below 0, or more than kShardsMax
// shards.
absl::StatusOr<std::vector<size_t>> PlanShards(absl::Span<const int64_t> bytes,
                                               int64_t max_bytes);

// "model-00001-of-00003.gguf" for stem "model", index 0 of 3, ".gguf"; with a
// count of 1 "model.gguf".
std::string ShardName(absl::string_view stem, size_t index, size_t count,
                      absl::string_view extension);

// Commits complete files in order. After an error none of those is there.
absl::Status CommitAll(absl::Span<const std::unique_ptr<AtomicFile>> files);

// Removes from `folder` the files that ShardName may have given to an earlier
// write with this stem and extension, but for those of `keep`: a reader may
// prefer them.
absl::Status RemoveOtherShards(const std::string& folder,
                               absl::string_view stem,
                               absl::string_view extension,
                               absl::Span<const std::string> keep);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SHARD_PLAN_H_
