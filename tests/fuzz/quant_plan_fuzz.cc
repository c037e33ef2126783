// A quantization plan, and with it the patterns on names.
#include <cstddef>
#include <cstdint>
#include <string>

#include "services/model/module_pattern.h"
#include "services/model/quant_plan.h"
#include "tests/fuzz/fuzz_input.h"
#include "tests/fuzz/tiny_files.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace onegrid;
  static const auto* const config = new model::GemmaConfig(fuzz::TinyConfig());
  const auto plan = model::QuantPlan::Parse(fuzz::View(data, size));
  fuzz::PromiseNamed(plan.status(), "");
  if (!plan.ok()) return 0;
  const absl::Status check = model::CheckPlan(*plan, *config);
  fuzz::PromiseNamed(check, "");
  if (check.ok()) {
    fuzz::Promise(model::PlanBytes(*plan, *config) > 0, "a plan of no bytes");
  }
  for (const model::QuantRule& rule : plan->rules()) {
    const auto module = model::ModulePattern::Parse(rule.pattern.text());
    if (module.ok()) module->Matches("model.layers.0.self_attn.q_proj");
  }
  const auto again = model::QuantPlan::Parse(plan->ToText());
  fuzz::Promise(again.ok(), again.status().ToString());
  fuzz::Promise(again->ToText() == plan->ToText(),
                "a plan changes when it is written");
  return 0;
}
