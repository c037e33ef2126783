// Cuts a good file of each format, at every boundary of its sections and then
// after every byte, and wants an error of code DATA_LOSS and reason
// CORRUPT_FILE that names the file from each. Prints a table and exits 0 only
// if all are.
#include <cstdio>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "services/common/adapter_files.h"
#include "services/common/error_info.h"
#include "services/exporter/folded_checkpoint.h"
#include "services/model/adapter.h"
#include "services/model/gemma_config.h"
#include "services/model/gguf_reader.h"
#include "services/model/hf_model_config.h"
#include "services/model/hf_vocabulary.h"
#include "services/model/model_summary.h"
#include "services/model/safetensors.h"
#include "services/model/sentencepiece_model.h"
#include "services/model/tensor_names.h"
#include "tests/fuzz/file_sections.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

namespace onegrid::fuzz {
namespace {

struct Format {
  const char* name;
  std::string file_name;
  std::string good;
  std::vector<Boundary> boundaries;
  // The status of reading the file, which lies at a path or in its folder.
  std::function<absl::Status(const std::string& path)> read;
};

// JSON has no sections of its own: each line is one.
std::vector<Boundary> Lines(const std::string& text) {
  std::vector<Boundary> lines = {{"nothing", 0}};
  const size_t last = text.rfind('\n');
  for (size_t at = text.find('\n'); at < last; at = text.find('\n', at + 1)) {
    lines.push_back({absl::StrCat("line ", lines.size()), at + 1});
  }
  return lines;
}

// What is wrong with the error that a cut file gives; empty: nothing.
std::string Problem(const absl::Status& status, const std::string& path) {
  if (status.ok()) return "is read without an error";
  if (status.code() != absl::StatusCode::kDataLoss ||
      common::ErrorReason(status) != "CORRUPT_FILE" ||
      !absl::StrContains(status.message(), path)) {
    return absl::StrCat("gives ", status.ToString(), " (reason '",
                        common::ErrorReason(status), "')");
  }
  return "";
}

// Cuts at each place; the number of good errors.
size_t Cut(const Format& format, const std::vector<Boundary>& cuts) {
  size_t named = 0;
  for (const Boundary& cut : cuts) {
    const std::string path =
        Put(format.file_name, absl::string_view(format.good).substr(0, cut.at));
    const std::string problem = Problem(format.read(path), path);
    named += problem.empty();
    if (!problem.empty()) {
      std::printf("%s cut to %zu bytes, after %s, %s\n", format.name, cut.at,
                  cut.after.c_str(), problem.c_str());
    }
  }
  return named;
}

// An adapter in its three files.
std::vector<Format> AdapterFormats() {
  const std::string tensors = TinyAdapter(2);
  const std::string gguf = TinyAdapterGguf();
  const std::string config =
      "{\"r\": 2,\n\"lora_alpha\": 4,\n\"alpha_pattern\":\n"
      "{\"q_proj\": 8}}\n";
  Put("adapter_config.json", config);
  Put("adapter_model.safetensors", tensors);
  const auto linears = model::GemmaLinears(TinyConfig());
  const auto read = [linears](const std::string& file) {
    const auto files = common::FindAdapterFiles(file);
    if (!files.ok()) return files.status();
    return model::Adapter::Open(*files, "gemma3", linears).status();
  };
  const auto read_folder = [read](const std::string&) {
    return read(Folder());
  };
  return {
      {"safetensors, LoRA", "adapter_model.safetensors", tensors,
       SafetensorsBoundaries(tensors), read_folder},
      {"adapter_config.json", "adapter_config.json",
       config.substr(0, config.size() - 1), Lines(config), read_folder},
      {"GGUF, LoRA", "adapter.gguf", gguf, GgufBoundaries(gguf), read},
  };
}

std::vector<Format> Formats() {
  const std::string gguf = TinyGguf();
  const std::string every_type = EveryTypeGguf();
  const std::string plain = TinySafetensors(false);
  const std::string folded = TinyFolded();
  const std::string pieces = model::SerializeModelProto(TinyVocabulary());
  const std::string config = TinyConfigJson(false);
  const std::string index =
      "{\"weight_map\": {\n\"model.norm.weight\":\n\"model.safetensors\"\n}}";
  Put("model.safetensors", plain);
  const std::string tokens =
      "{\"added_tokens_decoder\": {\n"
      "\"0\": {\"content\": \"<pad>\",\n\"special\": true}}}";
  const auto vocabulary = [](const std::string&) {
    return model::ReadHfVocabulary(Folder(), 400).status();
  };
  const auto open_gguf = [](const std::string& path) {
    return model::GgufFile::Open(path).status();
  };
  const auto open_safetensors = [](const std::string& path) {
    return model::SafetensorsFile::Open(path).status();
  };
  return {
      {"GGUF, a model", "a.gguf", gguf, GgufBoundaries(gguf), open_gguf},
      {"GGUF, every type", "b.gguf", every_type, GgufBoundaries(every_type),
       open_gguf},
      {"safetensors, weights", "a.safetensors", plain,
       SafetensorsBoundaries(plain), open_safetensors},
      {"safetensors, folded checkpoint", "folded.safetensors", folded,
       SafetensorsBoundaries(folded),
       [](const std::string& path) {
         return exporter::FoldedCheckpoint::Open(path, TinyConfig()).status();
       }},
      {"tokenizer.model", "tokenizer.model", pieces, ProtoBoundaries(pieces),
       vocabulary},
      {"tokenizer_config.json", "tokenizer_config.json", tokens, Lines(tokens),
       vocabulary},
      {"config.json", "config.json", config.substr(0, config.size() - 1),
       Lines(config),
       [](const std::string&) {
         return model::SummarizeModel(Folder(), 64).status();
       }},
      {"model.safetensors.index.json", "model.safetensors.index.json", index,
       Lines(index),
       [](const std::string&) {
         return model::SummarizeModel(Folder(), 64).status();
       }},
  };
}

int Run() {
  size_t cuts = 0, named = 0;
  std::vector<std::string> rows;
  std::vector<Format> formats = Formats();
  for (Format& format : AdapterFormats()) formats.push_back(std::move(format));
  for (const Format& format : formats) {
    std::vector<Boundary> bytes;
    for (size_t at = 0; at < format.good.size(); ++at) {
      bytes.push_back({"a byte", at});
    }
    const size_t at_boundaries = Cut(format, format.boundaries);
    const size_t at_bytes = Cut(format, bytes);
    cuts += format.boundaries.size() + bytes.size();
    named += at_boundaries + at_bytes;
    char row[120];
    std::snprintf(row, sizeof(row), "| %-30s | %10zu | %5zu | %6zu | %5zu |",
                  format.name, format.boundaries.size(), at_boundaries,
                  bytes.size(), at_bytes);
    rows.push_back(row);
    // What is read next in this folder finds the file whole.
    const std::string path = Put(format.file_name, format.good);
    const absl::Status status = format.read(path);
    if (absl::StrContains(status.message(), path)) {
      std::printf("%s: the whole file %s\n", format.name,
                  status.ToString().c_str());
      ++cuts;
    }
  }
  std::printf("| %-30s | boundaries | named |  bytes | named |\n",
              "a good file, cut");
  std::printf("|%s|------------|-------|--------|-------|\n",
              std::string(32, '-').c_str());
  for (const std::string& row : rows) std::printf("%s\n", row.c_str());
  std::printf("truncation: %zu of %zu cuts give a named error (target %zu)\n",
              named, cuts, cuts);
  return named == cuts ? 0 : 1;
}

}  // namespace
}  // namespace onegrid::fuzz

int main() { return onegrid::fuzz::Run(); }
