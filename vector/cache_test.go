package vector

import (
	"context"
	"errors"
	"sync"
	"testing"
	"time"
)

// Those who ask at the same time for the same wait for one load, and who gives up
// does not end it. A newer version loads again, an older one does not.
func TestCacheLoadsOnce(t *testing.T) {
	c := NewCache[int](1000, 1000, time.Minute)
	key := CacheKey{Company: "a", Store: "vs_1"}
	loads, gate := 0, make(chan struct{})
	load := func(_ context.Context, old int) (int, int64, error) {
		<-gate
		loads++
		return old + 1, 10, nil
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := c.Get(gone, key, 1, load); err == nil {
		t.Error("one who has gone is answered")
	}
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if v, err := c.Get(t.Context(), key, 1, load); v != 1 || err != nil {
				t.Errorf("%d, %v", v, err)
			}
		})
	}
	close(gate)
	group.Wait()
	f := func(version int64, want, wantLoads int) {
		t.Helper()
		v, err := c.Get(t.Context(), key, version, load)
		if v != want || err != nil || loads != wantLoads {
			t.Errorf("version %d: %d after %d loads, %v; want %d after %d", version, v, loads, err, want, wantLoads)
		}
	}
	f(1, 1, 1)
	f(0, 1, 1)
	f(2, 2, 2)
	f(1, 2, 2)
	c.Forget("a", "vs_2")
	f(2, 2, 2)
	c.Forget("b", "")
	f(2, 2, 2)
	c.Forget("a", "vs_1")
	f(2, 1, 3)
	if !c.Has("a") || c.Has("b") {
		t.Error("it is not known of whom there is something")
	}
	c.Forget("a", "")
	if c.Has("a") || c.Bytes() != 0 {
		t.Errorf("%d bytes are left", c.Bytes())
	}
	broken := errors.New("no")
	if _, err := c.Get(t.Context(), key, 2, func(context.Context, int) (int, int64, error) { return 0, 0, broken }); err != broken {
		t.Errorf("got %v", err)
	}
	f(2, 1, 4)
}

// What is forgotten while it is being loaded does not come to stay.
func TestCacheForgetsWhatIsLoading(t *testing.T) {
	c := NewCache[int](1000, 1000, time.Minute)
	begun, gate := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = c.Get(t.Context(), CacheKey{Company: "a", Store: "vs_1"}, 1, func(context.Context, int) (int, int64, error) {
			close(begun)
			<-gate
			return 1, 10, nil
		})
	}()
	<-begun
	c.Forget("a", "")
	close(gate)
	<-done
	if c.Has("a") {
		t.Error("it stayed")
	}
}
