// A folded checkpoint of the tiny model.
#include <cstddef>
#include <cstdint>

#include "services/exporter/folded_checkpoint.h"
#include "services/model/tensor_names.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  static const auto* const config = new model::GemmaConfig(fuzz::TinyConfig());
  const std::string path =
      fuzz::Put("folded.safetensors", fuzz::View(data, size));
  const auto folded = exporter::FoldedCheckpoint::Open(path, *config);
  fuzz::PromiseNamed(folded.status(), path);
  if (!folded.ok()) return 0;
  for (const model::LinearSpec& spec : model::GemmaLinears(*config)) {
    const quant::GridMatrix matrix = (*folded)->Matrix(spec.gguf_name);
    fuzz::Promise(matrix.rows == spec.out && matrix.cols == spec.in,
                  "a matrix of another shape");
  }
  if ((*folded)->has_embedding()) (*folded)->Matrix(model::kGgufEmbedding);
  for (const model::NormSpec& spec : model::GemmaNorms(*config)) {
    (*folded)->Norm(spec.gguf_name);
  }
  return 0;
}
