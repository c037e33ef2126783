#ifndef SERVICES_MODEL_GGUF_WRITER_H_
#define SERVICES_MODEL_GGUF_WRITER_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/quant/ggml_types.h"
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

  // Writes the file: see AtomicFile for what happens on errors. InvalidArgument
  // (INVALID_METADATA): "general.architecture" was not set.
  absl::Status WriteTo(const std::string& path) const;

 private:
  struct Tensor {
    std::string name;
    quant::GgmlType type;
    std::vector<int64_t> dims;
    std::vector<uint8_t> owned;
    absl::Span<const uint8_t> borrowed;

    absl::Span<const uint8_t> bytes() const {
      return owned.empty() ? borrowed : absl::MakeConstSpan(owned);
    }
  };

  absl::Status CheckTensor(const std::string& name, quant::GgmlType type,
                           const std::vector<int64_t>& dims,
                           size_t bytes) const;
  std::string SerializeTables() const;

  std::vector<std::pair<std::string, GgufValue>> metadata_;
  std::vector<Tensor> tensors_;
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_WRITER_H_
