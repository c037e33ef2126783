// A tokenizer.model file.
#include <cstddef>
#include <cstdint>
#include <string>

#include "services/model/sentencepiece_model.h"
#include "services/model/sentencepiece_reader.h"
#include "tests/fuzz/fuzz_input.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  const auto read = model::VocabularyFromModelProto(fuzz::View(data, size),
                                                    "/a/tokenizer.model");
  fuzz::PromiseNamed(read.status(), "/a/tokenizer.model");
  if (!read.ok()) return 0;
  const std::string written = model::SerializeModelProto(*read);
  const auto again = model::VocabularyFromModelProto(written, "");
  fuzz::Promise(again.ok(), again.status().ToString());
  fuzz::Promise(model::SerializeModelProto(*again) == written,
                "a vocabulary changes when it is written");
  return 0;
}
