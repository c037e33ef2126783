// How many requests run and wait with which adapter.
#ifndef SERVICES_INFERENCE_ADAPTER_USE_H_
#define SERVICES_INFERENCE_ADAPTER_USE_H_

#include <map>
#include <string>

#include "absl/base/thread_annotations.h"
#include "absl/synchronization/mutex.h"

namespace onegrid::inference {

// Thread-safe.
class AdapterUse {
 public:
  struct Counts {
    int running = 0;
    int queued = 0;
  };

  // One request, from its arrival to its end: waits until Started. An empty
  // name is no adapter and is not counted.
  class Request {
   public:
    // `use` must outlive the request.
    Request(AdapterUse& use, std::string name);
    ~Request();
    Request(const Request&) = delete;
    Request& operator=(const Request&) = delete;

    void Started();

   private:
    AdapterUse& use_;
    const std::string name_;
    bool started_ = false;
  };

  // By name; none is all zeros.
  std::map<std::string, Counts> counts() const;

 private:
  void Add(const std::string& name, int running, int queued);

  mutable absl::Mutex mu_;
  std::map<std::string, Counts> counts_ ABSL_GUARDED_BY(mu_);
};

}  // namespace onegrid::inference

#endif  // SERVICES_INFERENCE_ADAPTER_USE_H_
