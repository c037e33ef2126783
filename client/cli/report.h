// The result of a pipeline run: one table for people, one JSON for scripts.
#ifndef CLIENT_CLI_REPORT_H_
#define CLIENT_CLI_REPORT_H_

#include <nlohmann/json.hpp>
#include <ostream>
#include <string>

#include "client/cli/jobs.h"
#include "proto/onegrid/v1/evaluation.pb.h"
#include "proto/onegrid/v1/export.pb.h"
#include "proto/onegrid/v1/tuning.pb.h"

namespace onegrid::cli {

// What a report is made of. Unset messages leave their keys out.
struct ReportInput {
  v1::TuningJob tuning_job;
  v1::Export exported;
  v1::Evaluation verify;
  v1::Evaluation base;
  v1::Evaluation served;
  ExportFiles files;
  double job_seconds = 0;
};

// Keys: base, float_adapter, served (accuracy in percent, perplexity, paths
// and sizes in bytes), equivalence, tokens_per_second, job_seconds.
nlohmann::json MakeReport(const ReportInput& input);

// The report as the table that `onegrid run` ends with.
void PrintReport(const nlohmann::json& report, std::ostream& out);

}  // namespace onegrid::cli

#endif  // CLIENT_CLI_REPORT_H_
