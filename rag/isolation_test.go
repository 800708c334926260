//go:build isolation

package rag

import (
	"os"
	"os/exec"
	"testing"
)

// TestIsolationSoakFails takes the company out of the filter of vectors: the soak of
// many companies must notice, with both indexes.
func TestIsolationSoakFails(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	passes := func(name, unfiltered string) bool {
		cmd := exec.CommandContext(t.Context(), self, "-test.run=^"+name+"$", "-test.timeout=300s", "-scale=small")
		cmd.Env = append(os.Environ(), "BULKHEAD_UNFILTERED="+unfiltered, "REQUIRE_SERVERS=1")
		return cmd.Run() == nil
	}
	for _, name := range []string{"TestSoakCompaniesLocal", "TestSoakCompaniesMilvus"} {
		if !passes(name, "") {
			t.Errorf("%s fails without any change", name)
		}
		if passes(name, "1") {
			t.Errorf("%s passes although the company is not in the filter", name)
		}
	}
}
