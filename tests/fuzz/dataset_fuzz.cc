// Lines of a dataset. The first byte says which format is asked for and whether
// lines that cannot be learned are left out.
#include <cstddef>
#include <cstdint>

#include "services/model/chat_template.h"
#include "services/model/dataset_format.h"
#include "services/model/jsonl_dataset.h"
#include "services/model/utf8.h"
#include "tests/fuzz/fuzz_input.h"

namespace onegrid::fuzz {
namespace {

void CheckRecord(const model::Record& record) {
  switch (record.kind) {
    case model::Record::Kind::kPair:
      Promise(!record.completion.empty(), "an empty completion");
      break;
    case model::Record::Kind::kText:
      Promise(!record.text.empty(), "an empty text");
      break;
    case model::Record::Kind::kChat:
      Promise(model::LearnProblem(record.turns).empty(),
              "a conversation that cannot be learned");
      Promise(model::IsValidUtf8(model::ChatTemplate::Text(
                  record.turns, model::ChatOptions{})),
              "a conversation that is not UTF-8");
  }
}

}  // namespace
}  // namespace onegrid::fuzz

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  if (size == 0) return 0;
  model::ReadOptions options;
  const int format = data[0] & 7;
  if (format < 5) options.format = static_cast<model::DataFormat>(format);
  options.drop_invalid = (data[0] & 8) != 0;
  const std::string path =
      fuzz::Put("data.jsonl", fuzz::View(data + 1, size - 1));
  const auto read = model::ReadRecords(path, options);
  fuzz::PromiseNamed(read.status(), path);
  if (read.ok()) {
    for (const model::Record& record : read->records) {
      fuzz::CheckRecord(record);
    }
  }
  fuzz::PromiseNamed(model::ReadJsonl(path).status(), path);
  return 0;
}
