// Row access to 2-D tensors of float32 or bfloat16 for the loops of row_ops.h.
// A view only: the tensor must outlive it. Thread-compatible.
#ifndef SERVICES_FINETUNER_ROWS_H_
#define SERVICES_FINETUNER_ROWS_H_

#include <ATen/ATen.h>

#include <cstdint>
#include <cstring>

#include "services/finetuner/row_ops.h"

namespace onegrid::finetuner {

// Rows of the last dimension of `tensor`, which must be contiguous there; rows
// are `tensor.stride(-2)` elements apart.
class Rows {
 public:
  explicit Rows(const at::Tensor& tensor)
      : data_(static_cast<char*>(tensor.data_ptr())),
        bf16_(tensor.scalar_type() == at::kBFloat16),
        stride_(tensor.stride(-2)) {
    TORCH_CHECK(bf16_ || tensor.scalar_type() == at::kFloat);
    TORCH_CHECK(tensor.stride(-1) == 1);
  }

  // Elements [column, column + n) of a row as floats: converted into `scratch`
  // for bfloat16, in place for float32.
  const float* Load(int64_t row, int64_t column, int64_t n,
                    float* scratch) const {
    if (!bf16_) return At<float>(row, column);
    LoadBf16Row(At<uint16_t>(row, column), n, scratch);
    return scratch;
  }

  void Store(int64_t row, int64_t column, int64_t n, const float* src) const {
    if (bf16_) {
      StoreBf16Row(src, n, At<uint16_t>(row, column));
    } else {
      std::memmove(At<float>(row, column), src, sizeof(float) * n);
    }
  }

  void StoreZeros(int64_t row, int64_t column, int64_t n) const {
    if (bf16_) {
      std::memset(At<uint16_t>(row, column), 0, sizeof(uint16_t) * n);
    } else {
      std::memset(At<float>(row, column), 0, sizeof(float) * n);
    }
  }

 private:
  template <typename T>
  T* At(int64_t row, int64_t column) const {
    return reinterpret_cast<T*>(data_) + row * stride_ + column;
  }

  char* data_;
  bool bf16_;
  int64_t stride_;  // Elements.
};

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_ROWS_H_
