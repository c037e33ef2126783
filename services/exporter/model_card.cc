#include "services/exporter/model_card.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "kernels/quant/ct_pack.h"
#include "kernels/quant/ggml_types.h"
#include "kernels/quant/grid_blocks.h"
#include "services/common/files.h"
#include "services/common/version.h"
#include "services/model/utf8.h"

namespace onegrid::exporter {
namespace {

bool IsAdapter(v1::ExportFormat format) {
  return format == v1::LORA_GGUF || format == v1::PEFT;
}

bool IsGemma4(const GridModel& model) {
  return model.config().family == model::GemmaFamily::kGemma4;
}

// "name" or "owner/name" as the Hub has them.
bool IsHubName(absl::string_view name) {
  int slashes = 0;
  for (const char c : name) {
    if (c == '/') ++slashes;
    if (!absl::ascii_isalnum(c) && c != '/' && c != '-' && c != '_' &&
        c != '.') {
      return false;
    }
  }
  return slashes <= 1 && !name.empty() && absl::ascii_isalnum(name.front()) &&
         absl::ascii_isalnum(name.back());
}

// The base on the Hub, if its GGUF says so; else its name here; "" for neither.
std::string HubBase(const GridModel& model, const std::string& base_name) {
  const auto url = model.base().GetString("general.base_model.0.repo_url");
  if (url.ok()) {
    absl::string_view name = *url;
    if (absl::ConsumePrefix(&name, "https://huggingface.co/") &&
        IsHubName(name)) {
      return std::string(name);
    }
  }
  return IsHubName(base_name) ? base_name : "";
}

std::string FrontMatter(const GridModel& model, const CardInput& input) {
  std::string library = "transformers";
  std::vector<std::string> tags = {"onegrid",
                                   IsGemma4(model) ? "gemma4" : "gemma3"};
  if (input.format == v1::GGUF) library = "gguf";
  if (input.format == v1::COMPRESSED_TENSORS) {
    tags.emplace_back("compressed-tensors");
  }
  if (input.format == v1::LORA_GGUF) library = "gguf";
  if (input.format == v1::PEFT) library = "peft";
  if (IsAdapter(input.format)) tags.emplace_back("lora");
  std::string text = absl::StrCat(
      "---\nlicense: ", IsGemma4(model) ? "apache-2.0" : "gemma", "\n");
  const std::string base = HubBase(model, input.base_name);
  if (!base.empty()) {
    absl::StrAppend(&text, "base_model: \"", base, "\"\nbase_model_relation: ",
                    IsAdapter(input.format) ? "adapter"
                    : input.tuned           ? "finetune"
                                            : "quantized",
                    "\n");
  }
  absl::StrAppend(&text, "library_name: ", library,
                  "\npipeline_tag: text-generation\ntags:\n- ",
                  absl::StrJoin(tags, "\n- "), "\n---\n\n");
  return text;
}

std::string CodeBlock(absl::string_view language, absl::string_view code) {
  return absl::StrCat("```", language, "\n", code, "\n```\n\n");
}

std::string HowToRun(const CardInput& input) {
  const std::string& file = input.files[0];
  switch (input.format) {
    case v1::GGUF:
      return absl::StrCat(
          "With llama.cpp, with Ollama, or with OneGrid's server",
          input.files.size() > 2 ? " (each finds the other files by the first)"
                                 : "",
          ":\n\n",
          CodeBlock("", absl::StrCat("llama-cli -m ", file,
                                     "\nollama create mymodel -f Modelfile"
                                     "\ninference --model=",
                                     file, " --port=7072")));
    case v1::COMPRESSED_TENSORS:
      return absl::StrCat(
          "In this folder, with transformers (it needs the package "
          "compressed-tensors) or with vLLM:\n\n",
          CodeBlock("python",
                    "from transformers import AutoModelForCausalLM, "
                    "AutoTokenizer\n"
                    "model = AutoModelForCausalLM.from_pretrained(\".\")\n"
                    "tokenizer = AutoTokenizer.from_pretrained(\".\")"),
          CodeBlock("", "vllm serve ."),
          "OneGrid takes it back with `exporter --import=. "
          "--out=model.gguf`.\n\n");
    case v1::LORA_GGUF:
      return absl::StrCat(
          "With llama.cpp, beside the base in GGUF:\n\n",
          CodeBlock("", absl::StrCat("llama-cli -m base.gguf --lora ", file)));
    default:
      return absl::StrCat(
          "With peft, in this folder, on top of the base:\n\n",
          CodeBlock("python",
                    "from peft import PeftModel\n"
                    "model = PeftModel.from_pretrained(base, \".\")"));
  }
}

std::string Code(absl::string_view text) {
  return absl::StrCat("`", text, "`");
}

// Not the folder that a user may have named it with.
absl::string_view LastPart(absl::string_view name) {
  return name.substr(name.find_last_of("/\\") + 1);
}

void AddRow(absl::string_view key, absl::string_view value, std::string* out) {
  absl::StrAppend(out, "| ", key, " | ", value, " |\n");
}

void AddSplit(absl::string_view name, const v1::DatasetSplit& split,
              std::string* out) {
  if (split.artifact().sha256().empty()) return;
  AddRow(absl::StrCat("split ", name),
         absl::StrCat(split.examples(), " examples, SHA-256 ",
                      Code(split.artifact().sha256())),
         out);
}

std::string PlanText(const v1::TuningJob& job) {
  const std::string& plan = job.grid().plan();
  if (plan.empty()) return "the base's grids";
  if (plan.find('\n') == std::string::npos && plan.size() <= 64) {
    return MarkdownText(plan);
  }
  return absl::StrCat("of its own, SHA-256 of its text ",
                      Code(common::Sha256Of(plan)));
}

void AddInitial(const v1::InitialAdapter& adapter, std::string* out) {
  std::string files =
      absl::StrCat("SHA-256 ", Code(adapter.tensors().sha256()));
  if (adapter.has_config()) {
    absl::StrAppend(&files, ", config ", Code(adapter.config().sha256()));
  }
  AddRow(adapter.keep() ? "adapter, as it was" : "adapter, tuned further",
         files, out);
}

std::string LineageTable(const CardInput& input) {
  const v1::BaseModel& base = input.origin.base_model();
  const v1::TuningJob& job = input.origin.tuning_job();
  const v1::Dataset& dataset = input.origin.dataset();
  std::string out = "| | |\n|---|---|\n";
  AddRow(
      "base model",
      MarkdownText(base.name().empty() ? std::string(LastPart(input.base_name))
                                       : base.name()),
      &out);
  AddRow("base on its grid, SHA-256", Code(input.base_sha256), &out);
  if (!base.source().sha256().empty()) {
    AddRow("imported from",
           absl::StrCat(MarkdownText(LastPart(base.source().file_name())),
                        ", SHA-256 ", Code(base.source().sha256())),
           &out);
  }
  if (!job.name().empty()) {
    AddRow("tuning job", MarkdownText(job.name()), &out);
    AddRow("mode", Code(v1::TuningMode_Name(job.mode())), &out);
    if (job.lora().rank() != 0) {
      AddRow("LoRA rank and alpha",
             absl::StrCat(job.lora().rank(), ", ", job.lora().alpha()), &out);
    }
    if (job.has_initial_adapter()) AddInitial(job.initial_adapter(), &out);
    AddRow("quantization plan", PlanText(job), &out);
    AddRow("seed", absl::StrCat(job.seed()), &out);
  }
  if (!dataset.name().empty()) {
    AddRow("dataset", MarkdownText(dataset.name()), &out);
    AddSplit("train", dataset.train(), &out);
    AddSplit("validation", dataset.validation(), &out);
    AddSplit("test", dataset.test(), &out);
  }
  AddRow("made by", absl::StrCat("OneGrid ", common::kVersion), &out);
  return absl::StrCat("## Lineage\n\n", out, "\n");
}

// How a format stores a matrix on a grid.
std::string StoredAs(v1::ExportFormat format, const quant::Grid& grid,
                     bool packed) {
  if (format == v1::COMPRESSED_TENSORS) {
    if (!packed) return "float32";
    return absl::StrCat("pack-quantized, ", quant::CodeBits(grid),
                        " bits, groups of ", grid.group);
  }
  const auto traits = quant::TraitsOf(quant::BlockType(grid));
  return traits.ok() ? traits->name : "";
}

std::string GridTable(const GridModel& model, const CardInput& input) {
  // (kind, grid) -> matrices and how they are stored.
  std::map<std::pair<std::string, std::string>, std::pair<int, std::string>>
      rows;
  const auto add = [&](const std::string& kind, const quant::Grid& grid,
                       bool packed) {
    auto& [count, stored] = rows[{kind, grid.name}];
    ++count;
    stored = StoredAs(input.format, grid, packed);
  };
  for (const model::LinearSpec& spec : model.linears()) {
    add(absl::StrCat(spec.kind, spec.experts > 1 ? " of the experts" : ""),
        model.GridOf(spec), IsPackedInCt(spec));
  }
  for (const model::TableSpec& table : model.tables()) {
    add(std::string(absl::StripSuffix(table.gguf_name, ".weight")),
        model.GridOf(table.gguf_name), false);
  }
  std::string out =
      "## Grids\n\n| tensors | grid | number | stored as |\n"
      "|---|---|---|---|\n";
  for (const auto& [key, value] : rows) {
    absl::StrAppend(&out, "| ", Code(key.first), " | ", Code(key.second), " | ",
                    value.first, " | ", value.second, " |\n");
  }
  return absl::StrCat(out, "\nNorms are float32.\n\n");
}

std::string Equivalence(const CardInput& input) {
  std::string out = absl::StrCat(
      "## Equivalence\n\nThese files were read again and compared with the ",
      input.tuned ? "checkpoint of the tuning job" : "base", ": ",
      input.tensors_bit_exact, " of ", input.tensors,
      " tensors are equal bit for bit");
  absl::StrAppend(&out,
                  input.tensors_bit_exact == input.tensors
                      ? ".\n"
                      : "; the others are norms whose weight minus 1 has no "
                        "exact float32.\n");
  const v1::TuningResult& result = input.origin.tuning_job().result();
  const auto metrics = [&](absl::string_view what,
                           const v1::ModelMetrics& found) {
    absl::StrAppend(&out, "\n", what, " on ", found.examples(),
                    " examples of the test split: accuracy ", found.accuracy(),
                    " %, perplexity ", found.perplexity(), ".\n");
  };
  if (!IsAdapter(input.format) && result.has_folded_metrics()) {
    metrics("The trainer's figures for this model", result.folded_metrics());
  }
  if (IsAdapter(input.format) && result.has_float_adapter()) {
    metrics("The trainer's figures for the adapter on its base",
            result.float_adapter());
  }
  return out;
}

}  // namespace

std::string MarkdownText(absl::string_view text) {
  std::string out;
  for (const char c : model::ReplaceInvalidUtf8(text)) {
    if (absl::ascii_iscntrl(c)) {
      out += ' ';
    } else {
      // What begins or ends something inside a line, a table's bar among it.
      if (absl::StrContains("\\`*_{}[]<>()#!|&~$@:", c)) out += '\\';
      out += c;
    }
  }
  return out;
}

std::string ModelCard(const GridModel& model, const CardInput& input) {
  const std::string name =
      input.origin.tuning_job().name().empty()
          ? std::string(LastPart(input.base_name))
          : std::string(absl::StripPrefix(input.origin.tuning_job().name(),
                                          "tuningJobs/"));
  const std::string terms =
      IsGemma4(model)
          ? "The base model is under the Apache License 2.0.\n"
          : "Gemma is provided under and subject to the Gemma Terms of Use "
            "found at <https://ai.google.dev/gemma/terms>.\n";
  return absl::StrCat(
      FrontMatter(model, input), "# ", MarkdownText(name), "\n\n",
      IsAdapter(input.format) ? "A LoRA adapter for " : "A quantized model of ",
      MarkdownText(LastPart(input.base_name)), ", ",
      input.tuned ? "tuned on its quantization grid" : "on a quantization grid",
      " by OneGrid.\n\n", HowToRun(input), LineageTable(input),
      IsAdapter(input.format) ? "" : GridTable(model, input),
      Equivalence(input), "\n## Terms\n\n", terms);
}

}  // namespace onegrid::exporter
