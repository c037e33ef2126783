#include "services/finetuner/plan_search.h"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <nlohmann/json.hpp>
#include <numeric>
#include <utility>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/strip.h"
#include "services/common/error_info.h"

namespace onegrid::finetuner {
namespace {

constexpr int64_t kUnitsMax = int64_t{1} << 20;
constexpr double kNever = std::numeric_limits<double>::infinity();

// Bytes of the smallest and of the largest plan, and the unit of which every
// difference of sizes is a multiple.
struct Sizes {
  int64_t least = 0;
  int64_t most = 0;
  int64_t unit = 0;
};

int64_t LeastOf(const TensorCosts& tensor) {
  int64_t least = tensor.grids[0].bytes;
  for (const GridCost& grid : tensor.grids) least = std::min(least, grid.bytes);
  return least;
}

Sizes Measure(absl::Span<const TensorCosts> tensors) {
  Sizes sizes;
  for (const TensorCosts& tensor : tensors) {
    const int64_t least = LeastOf(tensor);
    int64_t most = least;
    for (const GridCost& grid : tensor.grids) {
      most = std::max(most, grid.bytes);
      sizes.unit = std::gcd(sizes.unit, grid.bytes - least);
    }
    sizes.least += least;
    sizes.most += most;
  }
  sizes.unit = std::max<int64_t>(1, sizes.unit);
  return sizes;
}

absl::Status BudgetError(const char* reason, int64_t budget, const char* key,
                         int64_t bytes, const char* what) {
  return common::MakeError(
      absl::StatusCode::kInvalidArgument, reason,
      absl::StrCat("a budget of ", budget, " bytes ", what, " ", bytes),
      {{"budget_bytes", absl::StrCat(budget)}, {key, absl::StrCat(bytes)}});
}

// Takes a tensor into the table: best[u] is the least KL of the tensors so far
// with at most u units more than their least sizes. Returns each entry's grid.
std::vector<int8_t> AddTensor(const TensorCosts& tensor, int64_t unit,
                              std::vector<double>* best) {
  const int64_t least = LeastOf(tensor);
  std::vector<double> next(best->size(), kNever);
  std::vector<int8_t> choice(best->size(), 0);
  for (size_t g = 0; g < tensor.grids.size(); ++g) {
    const auto units =
        static_cast<size_t>((tensor.grids[g].bytes - least + unit - 1) / unit);
    for (size_t u = units; u < best->size(); ++u) {
      const double kl = (*best)[u - units] + tensor.grids[g].kl;
      if (kl < next[u]) {
        next[u] = kl;
        choice[u] = static_cast<int8_t>(g);
      }
    }
  }
  *best = std::move(next);
  return choice;
}

}  // namespace

absl::StatusOr<std::vector<int>> SearchPlan(
    absl::Span<const TensorCosts> tensors, int64_t budget_bytes) {
  const Sizes sizes = Measure(tensors);
  if (budget_bytes < sizes.least) {
    return BudgetError("BUDGET_TOO_SMALL", budget_bytes, "least_bytes",
                       sizes.least,
                       "is too small: the smallest grids of all matrices take");
  }
  if (budget_bytes > sizes.most) {
    return BudgetError("BUDGET_TOO_LARGE", budget_bytes, "most_bytes",
                       sizes.most,
                       "leaves nothing to choose: the largest grids of all "
                       "matrices take only");
  }
  const int64_t spare = budget_bytes - sizes.least;
  const int64_t unit =
      std::max(sizes.unit, (spare + kUnitsMax - 1) / kUnitsMax);
  std::vector<double> best(static_cast<size_t>(spare / unit + 1), 0.0);
  std::vector<std::vector<int8_t>> choices;
  for (const TensorCosts& tensor : tensors) {
    choices.push_back(AddTensor(tensor, unit, &best));
  }
  // The smallest plan among those with the least KL.
  auto u = static_cast<size_t>(
      std::find(best.begin(), best.end(), best.back()) - best.begin());
  std::vector<int> plan(tensors.size());
  for (size_t i = tensors.size(); i-- > 0;) {
    plan[i] = choices[i][u];
    const int64_t more = tensors[i].grids[static_cast<size_t>(plan[i])].bytes -
                         LeastOf(tensors[i]);
    u -= static_cast<size_t>((more + unit - 1) / unit);
  }
  return plan;
}

absl::StatusOr<model::QuantPlan> MakePlan(absl::Span<const TensorCosts> tensors,
                                          absl::Span<const int> plan) {
  std::vector<model::QuantRule> rules;
  for (size_t i = 0; i < tensors.size(); ++i) {
    std::string comment = "KL";
    for (const GridCost& grid : tensors[i].grids) {
      absl::StrAppendFormat(&comment, " %s %.3g", grid.grid->name, grid.kl);
    }
    ASSIGN_OR_RETURN(model::NamePattern pattern,
                     model::NamePattern::Parse(tensors[i].name));
    rules.push_back({std::move(pattern),
                     tensors[i].grids[static_cast<size_t>(plan[i])].grid,
                     std::move(comment)});
  }
  return model::QuantPlan(quant::kInt4G32, std::move(rules));
}

std::string CostsToJson(absl::Span<const TensorCosts> tensors) {
  nlohmann::json list = nlohmann::json::array();
  for (const TensorCosts& tensor : tensors) {
    nlohmann::json grids = nlohmann::json::array();
    for (const GridCost& grid : tensor.grids) {
      grids.push_back(
          {{"grid", grid.grid->name}, {"bytes", grid.bytes}, {"kl", grid.kl}});
    }
    list.push_back({{"name", tensor.name}, {"grids", grids}});
  }
  return list.dump(1) + "\n";
}

absl::StatusOr<std::vector<TensorCosts>> CostsFromJson(absl::string_view text) {
  const auto invalid = [](absl::string_view what) {
    return common::MakeError(absl::StatusCode::kInvalidArgument,
                             "INVALID_COSTS",
                             absl::StrCat("sensitivity file: ", what));
  };
  std::vector<TensorCosts> tensors;
  try {
    for (const nlohmann::json& item : nlohmann::json::parse(text)) {
      TensorCosts tensor{item.at("name").get<std::string>(), {}};
      for (const nlohmann::json& cost : item.at("grids")) {
        const auto grid = quant::GridByName(cost.at("grid").get<std::string>());
        if (!grid.ok()) return invalid(grid.status().message());
        tensor.grids.push_back({*grid, cost.at("bytes").get<int64_t>(),
                                cost.at("kl").get<double>()});
      }
      if (tensor.grids.empty()) return invalid("a tensor without grids");
      tensors.push_back(std::move(tensor));
    }
  } catch (const nlohmann::json::exception& error) {
    return invalid(error.what());
  }
  if (tensors.empty()) return invalid("no tensors");
  return tensors;
}

absl::StatusOr<std::optional<int64_t>> ParseAutoPlan(absl::string_view text) {
  if (!absl::ConsumePrefix(&text, "auto:")) return std::nullopt;
  int64_t bytes = 0;
  if (!absl::SimpleAtoi(text, &bytes) || bytes <= 0) {
    return common::MakeError(
        absl::StatusCode::kInvalidArgument, "INVALID_QUANT_PLAN",
        absl::StrCat("auto:", text, ": expected a number of bytes"));
  }
  return bytes;
}

}  // namespace onegrid::finetuner
