#include "services/inference/adapter_use.h"

#include <utility>

namespace onegrid::inference {

AdapterUse::Request::Request(AdapterUse& use, std::string name)
    : use_(use), name_(std::move(name)) {
  use_.Add(name_, 0, 1);
}

AdapterUse::Request::~Request() {
  use_.Add(name_, started_ ? -1 : 0, started_ ? 0 : -1);
}

void AdapterUse::Request::Started() {
  if (started_) return;
  started_ = true;
  use_.Add(name_, 1, -1);
}

std::map<std::string, AdapterUse::Counts> AdapterUse::counts() const {
  absl::MutexLock lock(&mu_);
  return counts_;
}

void AdapterUse::Add(const std::string& name, int running, int queued) {
  if (name.empty()) return;
  absl::MutexLock lock(&mu_);
  Counts& counts = counts_[name];
  counts.running += running;
  counts.queued += queued;
  if (counts.running == 0 && counts.queued == 0) counts_.erase(name);
}

}  // namespace onegrid::inference
