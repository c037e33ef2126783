#include "services/controller/store.h"

#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#include <string>

#include "gtest/gtest.h"
#include "services/common/error_info.h"

namespace onegrid::controller {
namespace {

class StoreTest : public testing::Test {
 protected:
  StoreTest() {
    std::string name = testing::TempDir() + "/store.XXXXXX";
    path_ = std::string(::mkdtemp(name.data())) + "/db";
    Reopen();
  }

  void Reopen() {
    store_ = nullptr;
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(path_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = std::move(*store);
  }

  static absl::Status InsertRow(StoreTransaction& transaction,
                                const std::string& name) {
    ResourceRow row;
    row.name = name;
    row.data = "data of " + name;
    return transaction.Insert(&row);
  }

  bool Has(const std::string& name) {
    bool has = false;
    EXPECT_TRUE(store_
                    ->View([&](StoreTransaction& transaction) -> absl::Status {
                      ASSIGN_OR_RETURN(const std::optional<ResourceRow> row,
                                       transaction.Find(name));
                      has = row.has_value();
                      return absl::OkStatus();
                    })
                    .ok());
    return has;
  }

  std::string path_;
  std::unique_ptr<Store> store_;
};

TEST_F(StoreTest, CommittedRowsSurviveReopening) {
  ASSERT_TRUE(store_
                  ->Update([](StoreTransaction& transaction) {
                    return InsertRow(transaction, "datasets/a");
                  })
                  .ok());
  Reopen();
  EXPECT_TRUE(Has("datasets/a"));
}

TEST_F(StoreTest, FailedUpdateLeavesNothing) {
  const absl::Status status =
      store_->Update([](StoreTransaction& transaction) -> absl::Status {
        RETURN_IF_ERROR(InsertRow(transaction, "datasets/a"));
        return absl::AbortedError("no");
      });
  EXPECT_EQ(status.code(), absl::StatusCode::kAborted);
  EXPECT_FALSE(Has("datasets/a"));
}

TEST_F(StoreTest, KilledProcessLosesOnlyWhatItDidNotCommit) {
  const pid_t pid = ::fork();
  if (pid == 0) {
    absl::StatusOr<std::unique_ptr<Store>> store = Store::Open(path_);
    if (!store.ok()) ::_exit(1);
    (void)(*store)->Update([](StoreTransaction& transaction) {
      return InsertRow(transaction, "datasets/committed");
    });
    (void)(*store)->Update([](StoreTransaction& transaction) -> absl::Status {
      RETURN_IF_ERROR(InsertRow(transaction, "datasets/torn"));
      ::kill(::getpid(), SIGKILL);
      return absl::OkStatus();
    });
    ::_exit(1);
  }
  int wait_status = 0;
  ASSERT_EQ(::waitpid(pid, &wait_status, 0), pid);
  ASSERT_TRUE(WIFSIGNALED(wait_status));
  Reopen();
  EXPECT_TRUE(Has("datasets/committed"));
  EXPECT_FALSE(Has("datasets/torn"));
}

TEST_F(StoreTest, NewerSchemaIsRefused) {
  store_ = nullptr;
  ASSERT_TRUE(
      (*SqliteDatabase::Open(path_))->Execute("PRAGMA user_version=99").ok());
  const absl::Status status = Store::Open(path_).status();
  EXPECT_EQ(common::ErrorReason(status), "STORE_ERROR");
}

TEST_F(StoreTest, ProgressEventsReplaceEachOtherAndKeepTheirOrder) {
  const auto append = [&](const std::string& message, bool progress_only) {
    int64_t sequence = 0;
    EXPECT_TRUE(store_
                    ->Update([&](StoreTransaction& transaction) {
                      v1::Event event;
                      event.set_resource("tuningJobs/a");
                      event.set_message(message);
                      const absl::Status status = transaction.AppendEvent(
                          &event, "pipelineRuns/r", progress_only);
                      sequence = event.sequence();
                      return status;
                    })
                    .ok());
    return sequence;
  };
  const int64_t first = append("started", false);
  append("10 %", true);
  append("checkpoint", false);
  const int64_t last = append("20 %", true);
  EXPECT_GT(last, first);
  std::vector<v1::Event> events;
  ASSERT_TRUE(store_
                  ->View([&](StoreTransaction& transaction) -> absl::Status {
                    ASSIGN_OR_RETURN(events, transaction.EventsAfter(
                                                 0, "pipelineRuns/r", 10));
                    return absl::OkStatus();
                  })
                  .ok());
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(events[0].message(), "started");
  EXPECT_EQ(events[1].message(), "checkpoint");
  EXPECT_EQ(events[2].message(), "20 %");
  EXPECT_EQ(events[2].sequence(), last);
}

}  // namespace
}  // namespace onegrid::controller
