#ifndef SERVICES_MODEL_GGUF_PARSER_H_
#define SERVICES_MODEL_GGUF_PARSER_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "services/model/gguf_reader.h"

namespace onegrid::model {

// Reads the header, metadata and tensor table of one mapped GGUF file into a
// GgufFile; used by GgufFile only. Layout, all little-endian:
//   "GGUF" | u32 version | u64 tensor count | u64 metadata count
//   metadata: string key | u32 type | value       (string: u64 length, bytes)
//   tensors:  string name | u32 n | u64 dims[n] | u32 type | u64 offset
//   padding to general.alignment (default 32) | tensor data
class GgufParser {
 public:
  explicit GgufParser(std::unique_ptr<MappedFile> file);
  absl::StatusOr<std::unique_ptr<GgufFile>> Parse();

 private:
  absl::Status ParseHeader();
  absl::Status ParseMetadata();
  absl::Status ParseTensorTable();
  absl::Status ParseTensorInfo(uint64_t index);
  absl::Status PlaceTensors();
  absl::StatusOr<uint64_t> TensorBytes(const GgufFile::Tensor& tensor) const;

  template <typename T>
  absl::StatusOr<T> ReadScalar(const std::string& where);
  absl::StatusOr<std::string> ReadString(const std::string& where);
  template <typename T>
  absl::StatusOr<GgufValue> ReadArrayOf(const std::string& where,
                                        uint64_t count);
  absl::StatusOr<GgufValue> ReadArray(const std::string& where);
  absl::StatusOr<GgufValue> ReadValue(const std::string& where, uint32_t type);

  uint64_t remaining() const { return bytes_.size() - position_; }
  absl::Status Corrupt(const std::string& what) const;
  absl::Status Truncated(const std::string& where, uint64_t needed) const;

  std::unique_ptr<GgufFile> result_;
  absl::Span<const uint8_t> bytes_;
  std::string path_;
  uint64_t position_ = 0;
  uint64_t tensor_count_ = 0;
  uint64_t metadata_count_ = 0;
  uint64_t alignment_ = 32;
  std::vector<uint64_t> offsets_;  // per tensor, relative to the data start
};

}  // namespace onegrid::model

#endif  // SERVICES_MODEL_GGUF_PARSER_H_
