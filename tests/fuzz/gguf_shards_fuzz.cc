// A GGUF model in two shards, opened by either.
#include <cstddef>
#include <cstdint>
#include <vector>

#include "services/model/gguf_reader.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid::fuzz;
  const std::vector<absl::string_view> files = Files(View(data, size), 2);
  for (const std::string& path : {Put("m-00001-of-00002.gguf", files[0]),
                                  Put("m-00002-of-00002.gguf", files[1])}) {
    const auto file = onegrid::model::GgufFile::Open(path);
    PromiseNamed(file.status(), Folder());
    if (!file.ok()) continue;
    for (const auto& tensor : (*file)->tensors()) {
      Promise((*file)->Find(tensor.name) == &tensor, "a tensor is not found");
      Promise(!tensor.data.empty(), "a tensor has no data");
    }
  }
  return 0;
}
