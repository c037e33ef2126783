// A GGUF file, through all that a service reads of it.
#include <cstddef>
#include <cstdint>

#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/hf_tokenizer.h"
#include "services/model/model_summary.h"
#include "services/model/tensor_ops.h"
#include "services/model/tokenizer.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

void Read(absl::string_view bytes) {
  const std::string path = Put("model.gguf", bytes);
  const auto file = model::GgufFile::Open(path);
  PromiseNamed(file.status(), path);
  if (!file.ok()) return;
  for (const model::GgufFile::Tensor& tensor : (*file)->tensors()) {
    Promise((*file)->Find(tensor.name) == &tensor, "a tensor is not found");
    Promise(model::DequantizeTensor(tensor).ok(), "a tensor is not decoded");
  }
  PromiseNamed(model::ConfigFromGguf(**file).status(), path);
  const auto tokenizer = model::Tokenizer::FromGguf(**file);
  PromiseNamed(tokenizer.status(), path);
  if (tokenizer.ok()) {
    const auto ids = (*tokenizer)
                         ->Encode("abc \n\n<end_of_turn>\xff a", true,
                                  /*parse_control=*/true);
    (*tokenizer)->Decode(ids);
    model::HfTokenizerFiles(**file).IgnoreError();
  }
  PromiseNamed(model::SummarizeModel(path, 64).status(), path);
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  onegrid::fuzz::Read(onegrid::fuzz::View(data, size));
  return 0;
}
