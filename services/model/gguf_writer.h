#ifndef SERVICES_MODEL_GGUF_WRITER_H_
#define SERVICES_MODEL_GGUF_WRITER_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/atomic_file.h"
#include "services/model/gguf_value.h"

namespace onegrid::model {

// Writes a GGUF version 3 file that GgufFile, llama.cpp and Python's gguf read:
// metadata in the order it was set, tensors in the order they were added, each
// at a multiple of 32 bytes, padded with zeros. Tensor bytes are written from
// where they lie. Not thread-safe.
class GgufWriter {
 public:
  // Sets a metadata value; a second value for a key replaces the first.
  // "general.alignment" is not to be set: it is always the default, 32.
  void Set(const std::string& key, GgufValue value);

  // Adds a tensor. dims in ggml order (dims[0] contiguous). The bytes of the
  // span must stay alive until WriteTo; a vector is taken over.
  // InvalidArgument (INVALID_TENSOR): a name of more than 63 bytes or one added
  // before, not 1 to 4 positive dimensions, a row that is not whole blocks of
  // the type, or a byte count that does not match.
  absl::Status AddTensor(const std::string& name, quant::GgmlType type,
                         const std::vector<int64_t>& dims,
                         absl::Span<const uint8_t> data);
  absl::Status AddTensor(const std::string& name, quant::GgmlType type,
                         const std::vector<int64_t>& dims,
                         std::vector<uint8_t> data);

  // Takes a part of a tensor's bytes.
  using Sink = std::function<absl::Status(absl::Span<const uint8_t> part)>;
  // Gives a tensor's bytes to `sink`, part by part from the first on.
  using Producer = std::function<absl::Status(const Sink& sink)>;
  // The same with bytes that are made when the file is written, so that no more
  // than one tensor's need be held. `produce` is called once by each WriteTo,
  // in the order of the tensors.
  absl::Status AddProduced(const std::string& name, quant::GgmlType type,
                           const std::vector<int64_t>& dims, Producer produce);

  // Writes the file: see AtomicFile for what happens on errors. InvalidArgument
  // (INVALID_METADATA): "general.architecture" was not set. InvalidArgument
  // (INVALID_TENSOR): a producer gave more or fewer bytes than its tensor has.
  // Otherwise the error of a producer.
  absl::Status WriteTo(const std::string& path) const;

  // Writes folder/STEM.gguf or, if the tensors take more than max_shard_bytes
  // (0: no bound), shards as llama.cpp's gguf-split makes them and GgufFile
  // reads them: STEM-00001-of-00003.gguf and so on, the first with the
  // metadata, each with its number (see gguf_shards.h). Returns the names, and
  // removes those of an earlier write. All files are there, or none is new.
  // Errors: those of WriteTo and PlanShards.
  absl::StatusOr<std::vector<std::string>> WriteShards(
      const std::string& folder, const std::string& stem,
      int64_t max_shard_bytes) const;

 private:
  using Metadata = std::vector<std::pair<std::string, GgufValue>>;
  struct Tensor {
    std::string name;
    quant::GgmlType type;
    std::vector<int64_t> dims;
    int64_t bytes;
    std::vector<uint8_t> owned;
    absl::Span<const uint8_t> borrowed;
    Producer produce;  // null: the bytes are in one of those
  };

  // The bytes that a tensor of this type and shape has.
  absl::StatusOr<int64_t> CheckTensor(const std::string& name,
                                      quant::GgmlType type,
                                      const std::vector<int64_t>& dims) const;
  absl::Status Add(Tensor tensor, int64_t found_bytes);
  absl::Status CheckMetadata(const std::string& path) const;
  // A complete file that is not committed.
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Write(
      const std::string& path, const Metadata& metadata,
      absl::Span<const Tensor> tensors);

  Metadata metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_WRITER_H_
