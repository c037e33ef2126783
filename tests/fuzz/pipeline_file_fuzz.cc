// A pipeline file of `onegrid run`; behind a mark one override.
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "client/cli/pipeline_file.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid::fuzz;
  const std::vector<absl::string_view> files = Files(View(data, size), 2);
  std::vector<std::string> overrides;
  if (!files[1].empty()) overrides.emplace_back(files[1]);
  const auto file = onegrid::cli::ParsePipelineFile(std::string(files[0]),
                                                    "/folder", overrides);
  PromiseNamed(file.status(), "");
  return 0;
}
