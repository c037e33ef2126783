#ifndef SERVICES_MODEL_GGUF_READER_H_
#define SERVICES_MODEL_GGUF_READER_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"
#include "kernels/quant/ggml_types.h"
#include "services/model/gguf_value.h"
#include "services/model/mapped_file.h"

namespace onegrid::model {

// A GGUF version 3 file (little-endian), memory-mapped, or a model that was
// split into several such files, which is opened by any one of them.
//
// The file is outside input: every count, length and offset is checked against
// the bytes that are left before it is used, and memory taken stays within a
// small multiple of the file's size. What is refused is what llama.cpp's reader
// refuses: duplicate keys or tensor names, names of 64 bytes or more, an
// alignment that is not a power of two, tensors that are not laid out in table
// order without gaps.
//
// Errors of Open: those of MappedFile::Open; DataLoss (CORRUPT_FILE);
// Unimplemented (UNSUPPORTED_FORMAT_VERSION, UNSUPPORTED_TENSOR_TYPE). Each
// names the file, the place, what was expected and what was found. Of shards
// too: NotFound (MISSING_SHARD); DataLoss (SHARD_MISMATCH): a name that does
// not fit, a file of another split, or not as many tensors as declared;
// DataLoss (DUPLICATE_TENSOR): one is in two shards.
// Thread-safe after Open. Tensor data points into the mapping: the GgufFile
// must outlive it.
class GgufFile {
 public:
  struct Tensor {
    std::string name;
    quant::GgmlType type;
    // ggml order: dims[0] is the contiguous one. A linear [out, in] has dims
    // {in, out}; a vector has one dimension.
    std::vector<int64_t> dims;
    absl::Span<const uint8_t> data;

    // The product of all dimensions but the first.
    int64_t rows() const {
      int64_t n = 1;
      for (size_t i = 1; i < dims.size(); ++i) n *= dims[i];
      return n;
    }
    int64_t cols() const { return dims[0]; }
  };

  static absl::StatusOr<std::unique_ptr<GgufFile>> Open(
      const std::string& path);

  // As given to Open.
  const std::string& path() const { return path_; }
  // Of all shards, in order.
  std::vector<std::string> file_paths() const;
  int64_t file_bytes() const;
  // Aborted (FILE_CHANGED): one of the files was written to since Open, or
  // another has taken its place, so that it is not what others read there.
  absl::Status CheckUnchanged() const;
  // See MappedFile. The part lies in one tensor.
  void DropPages(absl::Span<const uint8_t> part) const;
  // In file order, shard by shard.
  const std::vector<Tensor>& tensors() const { return tensors_; }
  // nullptr if there is no such tensor.
  const Tensor* Find(absl::string_view name) const;

  bool Has(const std::string& key) const { return metadata_.count(key) > 0; }
  const std::map<std::string, GgufValue>& metadata() const { return metadata_; }

  // Typed access. NotFound if the key is missing, InvalidArgument if its value
  // has another type (both reason CORRUPT_FILE, naming key, expected and
  // found). GetU32 takes any integer type whose value fits.
  absl::StatusOr<uint32_t> GetU32(const std::string& key) const;
  absl::StatusOr<float> GetF32(const std::string& key) const;
  absl::StatusOr<bool> GetBool(const std::string& key) const;
  absl::StatusOr<std::string> GetString(const std::string& key) const;
  // Arrays are copied.
  absl::StatusOr<std::vector<std::string>> GetStrings(
      const std::string& key) const;
  absl::StatusOr<std::vector<float>> GetF32s(const std::string& key) const;
  absl::StatusOr<std::vector<int32_t>> GetI32s(const std::string& key) const;

 private:
  friend class GgufParser;
  friend class GgufShards;
  GgufFile() = default;
  // One file, a shard alone.
  static absl::StatusOr<std::unique_ptr<GgufFile>> OpenOne(
      const std::string& path);

  template <typename T>
  absl::StatusOr<T> Get(const std::string& key,
                        const std::string& expected) const;

  std::string path_;
  std::vector<std::unique_ptr<MappedFile>> files_;
  // Without the keys that number the shards.
  std::map<std::string, GgufValue> metadata_;
  std::vector<Tensor> tensors_;
  absl::flat_hash_map<std::string, size_t> index_;
};

// "u32", "array of string", ...
std::string GgufValueTypeName(const GgufValue& value);

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_READER_H_
