#ifndef SERVICES_MODEL_GGUF_SHARDS_H_
#define SERVICES_MODEL_GGUF_SHARDS_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

// Joins the files of a model that was split: NAME-00001-of-00003.gguf and so
// on, each a GGUF file with its part of the tensors; used by GgufFile::Open
// only. The first has the model's metadata, each has (llama.cpp's gguf-split
// and Python's gguf write them)
//   split.no             index of the file, from 0
//   split.count          number of files
//   split.tensors.count  tensors in all files together
class GgufShards {
 public:
  // The whole model, if `opened` is any one of several shards; else `opened`.
  // Errors: see GgufFile::Open.
  static absl::StatusOr<std::unique_ptr<GgufFile>> Join(
      std::unique_ptr<GgufFile> opened);

 private:
  // What the shards of one split have in common.
  struct Split {
    std::string prefix;  // path up to "-00001-of-00003.gguf"
    uint32_t count;
    uint32_t tensors;
  };

  static absl::StatusOr<Split> SplitOf(const GgufFile& opened);
  static absl::Status CheckShard(const GgufFile& shard, const Split& split,
                                 uint32_t index);
  static absl::Status Append(std::unique_ptr<GgufFile> shard, GgufFile* whole);
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_SHARDS_H_
