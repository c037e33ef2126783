// The matrices of a read adapter as tensors.
#ifndef SERVICES_FINETUNER_ADAPTER_TENSORS_H_
#define SERVICES_FINETUNER_ADAPTER_TENSORS_H_

#include <ATen/ATen.h>

#include <cstring>

#include "absl/types/span.h"
#include "services/model/adapter.h"

namespace onegrid::finetuner {

// A copy: the bytes may lie at any address of a mapped file.
inline at::Tensor MatrixOf(absl::Span<const uint8_t> bytes, int64_t rows,
                           int64_t cols) {
  at::Tensor matrix = at::empty({rows, cols}, at::kFloat);
  std::memcpy(matrix.mutable_data_ptr(), bytes.data(), bytes.size());
  return matrix;
}

// [rank, in] and [out, rank], float32.
inline at::Tensor AdapterA(const model::AdapterPair& pair) {
  return MatrixOf(pair.a, pair.rank, pair.spec.in);
}
inline at::Tensor AdapterB(const model::AdapterPair& pair) {
  return MatrixOf(pair.b, pair.spec.out, pair.rank);
}

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_ADAPTER_TENSORS_H_
