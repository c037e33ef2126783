#ifndef SERVICES_MODEL_SAFETENSORS_H_
#define SERVICES_MODEL_SAFETENSORS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "services/model/atomic_file.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {

// A safetensors file, memory-mapped: u64 header length (little-endian), a JSON
// header, then the data. The file is outside input: lengths, shapes and offsets
// are checked before use; tensors must not overlap, and together they must
// cover the data section exactly, as Hugging Face's reader demands.
//
// Errors of Open: those of MappedFile::Open; DataLoss (CORRUPT_FILE);
// Unimplemented (UNSUPPORTED_TENSOR_TYPE). Thread-safe after Open. Tensor data
// points into the mapping: the SafetensorsFile must outlive it.
class SafetensorsFile {
 public:
  struct Tensor {
    std::string dtype;           // "F32", "BF16", "I8", ...
    std::vector<int64_t> shape;  // row-major; empty for a scalar
    absl::Span<const uint8_t> data;
  };

  static absl::StatusOr<std::unique_ptr<SafetensorsFile>> Open(
      const std::string& path);

  const std::string& path() const { return file_->path(); }
  // nullptr if there is no such tensor.
  const Tensor* Find(const std::string& name) const;
  // Sorted.
  std::vector<std::string> names() const;
  const std::map<std::string, std::string>& metadata() const {
    return metadata_;
  }

 private:
  SafetensorsFile() = default;
  absl::Status Parse();
  absl::Status ParseHeader(absl::string_view header,
                           absl::Span<const uint8_t> data);
  absl::Status CheckCoverage(int64_t data_bytes) const;

  std::unique_ptr<MappedFile> file_;
  std::map<std::string, Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

// Writes a safetensors file. Tensors lie in the order they were added, each at
// a multiple of 8 bytes of the file as long as the sizes before allow it (the
// format has no gaps; give wide types first). Not thread-safe.
class SafetensorsWriter {
 public:
  // Adds a tensor. The bytes of the span must stay alive until WriteTo; a
  // vector is taken over. InvalidArgument (INVALID_TENSOR): a name added
  // before, an unknown dtype, or a byte count that does not match.
  absl::Status Add(const std::string& name, const std::string& dtype,
                   const std::vector<int64_t>& shape,
                   absl::Span<const uint8_t> data);
  absl::Status Add(const std::string& name, const std::string& dtype,
                   const std::vector<int64_t>& shape,
                   std::vector<uint8_t> data);
  // The same with bytes that are made when the file is written: see GgufWriter.
  using Sink = std::function<absl::Status(absl::Span<const uint8_t> part)>;
  using Producer = std::function<absl::Status(const Sink& sink)>;
  absl::Status AddProduced(const std::string& name, const std::string& dtype,
                           const std::vector<int64_t>& shape, Producer produce);
  void SetMetadata(const std::string& key, const std::string& value);

  // InvalidArgument (INVALID_TENSOR): a producer gave more or fewer bytes than
  // its tensor has. Otherwise the error of a producer. See AtomicFile for what
  // happens on errors.
  absl::Status WriteTo(const std::string& path) const;

  // Writes folder/STEM.safetensors or, if the tensors take more than
  // max_shard_bytes (0: no bound), shards as transformers reads them:
  // STEM-00001-of-00003.safetensors and so on, and STEM.safetensors.index.json
  // with the file of each tensor (weight_map) and the bytes of all together
  // (metadata.total_size). Returns the names, and removes those of an earlier
  // write. All files are there, or none is new. Errors: those of WriteTo and
  // PlanShards.
  absl::StatusOr<std::vector<std::string>> WriteShards(
      const std::string& folder, const std::string& stem,
      int64_t max_shard_bytes) const;

 private:
  struct Tensor {
    std::string name;
    std::string dtype;
    std::vector<int64_t> shape;
    int64_t bytes;
    std::vector<uint8_t> owned;
    absl::Span<const uint8_t> borrowed;
    Producer produce;  // null: the bytes are in one of those
  };
  // Checks and adds the tensor, whose bytes are set here; found_bytes: of data
  // that is there, -1 for none.
  absl::Status AddTensor(Tensor tensor, int64_t found_bytes);
  // A complete file that is not committed.
  absl::StatusOr<std::unique_ptr<AtomicFile>> Write(
      const std::string& path, absl::Span<const Tensor> tensors) const;

  std::vector<Tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_SAFETENSORS_H_
