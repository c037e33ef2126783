// A Gemma 3 checkpoint in float: what quantization starts from and the teacher
// that it is measured against.
#ifndef SERVICES_FINETUNER_FLOAT_CHECKPOINT_H_
#define SERVICES_FINETUNER_FLOAT_CHECKPOINT_H_

#include <ATen/ATen.h>

#include <vector>

#include "absl/status/statusor.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/tensor_names.h"

namespace onegrid::finetuner {

// All values float32. Linears are in the order of GemmaLinears, norms in that
// of GemmaNorms (GGUF values: they multiply plainly).
struct FloatCheckpoint {
  model::GemmaConfig config;
  std::vector<model::LinearSpec> specs;
  std::vector<at::Tensor> linears;  // [out, in], parallel to specs.
  at::Tensor embedding;             // [vocab, hidden], also the head if tied.
  // [vocab, layers * width], each layer's own input; undefined if none.
  at::Tensor per_layer_embedding;
  std::vector<std::vector<float>> norms;
};

// Decodes a GGUF of any tensor types that kernels/quant reads, an on-grid file
// included. InvalidArgument (UNSUPPORTED_TENSOR; tensor): one is missing or has
// another shape. Otherwise the errors of model::ConfigFromGguf and
// model::DequantizeTensor.
absl::StatusOr<FloatCheckpoint> LoadFloatCheckpoint(
    const model::GgufFile& file);

}  // namespace onegrid::finetuner

#endif  // SERVICES_FINETUNER_FLOAT_CHECKPOINT_H_
