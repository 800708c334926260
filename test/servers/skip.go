package servers

import "testing"

// SkipRace skips a test under the race detector, for a race that is not ours:
// why says whose. The test runs without the detector as well.
func SkipRace(t testing.TB, why string) {
	t.Helper()
	if underRace {
		t.Skip("not under the race detector: " + why)
	}
}

// ClusterRace is a reason for SkipRace.
const ClusterRace = "go-redis 9.23.0 reads the addresses of a Cluster in clusterNodes.Addrs while GetOrCreateWithNodeAddress adds to them"
