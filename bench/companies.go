//go:build linux

package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"
)

// companiesRow is a gateway that serves this many companies.
type companiesRow struct {
	Companies int     `json:"companies"`
	Create    float64 `json:"create_seconds"` // companies and credentials, 4 at a time
	RSSIdle   float64 `json:"rss_mib_idle"`   // started anew, no company called
	RSSWarm   float64 `json:"rss_mib_warm"`   // each company called once
	HeapIdle  float64 `json:"heap_mib_idle"`  // live heap after a collection; 0: the gateway does not say
	HeapWarm  float64 `json:"heap_mib_warm"`

	keys []string
}

// companiesResult compares a few companies with many.
type companiesResult struct {
	Rows []companiesRow `json:"gateways"`
	CPU  cpuResult      `json:"cpu"`

	// The growth from the first row to the second, for one company.
	RSSIdleKiB  float64 `json:"rss_idle_kib_per_company"`
	RSSWarmKiB  float64 `json:"rss_warm_kib_per_company"`
	HeapIdleKiB float64 `json:"heap_idle_kib_per_company"`
	HeapWarmKiB float64 `json:"heap_warm_kib_per_company"`
}

func (b *bench) companies(ctx context.Context) (*companiesResult, error) {
	res := &companiesResult{}
	var targets []*target
	var sources []source
	for _, n := range []int{b.few, b.all} {
		g, row, err := b.populated(ctx, n)
		if err != nil {
			return nil, fmt.Errorf("companies: %d: %w", n, err)
		}
		defer g.stop()
		body := chatRequest(smallBody, false, "")
		src := source{}
		for _, key := range row.keys {
			src.requests = append(src.requests, wire(key, body))
		}
		if err := callOnce(g.addr, src); err != nil {
			return nil, fmt.Errorf("companies: %d: %w", n, err)
		}
		if row.RSSWarm, row.HeapWarm, err = memory(g); err != nil {
			return nil, err
		}
		res.Rows = append(res.Rows, row)
		targets = append(targets, &target{name: fmt.Sprint(n, " companies"), addr: g.addr, proc: g.process})
		sources = append(sources, src)
	}
	var err error
	if res.CPU, err = b.cpu(ctx, "companies", b.conns, targets, sources); err != nil {
		return nil, err
	}
	few, many := res.Rows[0], res.Rows[1]
	per := func(few, many float64) float64 { return (many - few) * 1024 / float64(b.all-b.few) }
	res.RSSIdleKiB, res.RSSWarmKiB = per(few.RSSIdle, many.RSSIdle), per(few.RSSWarm, many.RSSWarm)
	res.HeapIdleKiB, res.HeapWarmKiB = per(few.HeapIdle, many.HeapIdle), per(few.HeapWarm, many.HeapWarm)
	return res, nil
}

// populated makes n companies, then starts the gateway anew on their data.
func (b *bench) populated(ctx context.Context, n int) (*gateway, companiesRow, error) {
	row := companiesRow{Companies: n}
	dir := filepath.Join(b.dir, fmt.Sprint("companies-", n))
	g, err := startGateway(b.binary, dir, b.mock)
	if err != nil {
		return nil, row, err
	}
	began := time.Now()
	row.keys, err = create(ctx, g, n)
	row.Create = time.Since(began).Seconds()
	g.stop()
	if err != nil {
		return nil, row, err
	}
	if g, err = startGateway(b.binary, dir, b.mock); err != nil {
		return nil, row, err
	}
	if row.RSSIdle, row.HeapIdle, err = memory(g); err != nil {
		g.stop()
		return nil, row, err
	}
	return g, row, nil
}

// create makes n companies, four at a time, and returns their keys.
func create(ctx context.Context, g *gateway, n int) ([]string, error) {
	keys := make([]string, n)
	return keys, each(ctx, n, 4, func(_ context.Context, i int) error {
		c, err := g.newCompany(fmt.Sprintf("c%d", i))
		keys[i] = c.APIKey
		return err
	})
}

// each does something with each of n companies, so many at a time.
func each(ctx context.Context, n, at int, f func(ctx context.Context, i int) error) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for w := range at {
		wg.Go(func() {
			for i := w; i < n && ctx.Err() == nil; i += at {
				if err := f(ctx, i); err != nil {
					cancel(fmt.Errorf("company %d: %w", i, err))
					return
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

// callOnce sends each request of the source once.
func callOnce(addr string, src source) error {
	c := newClient(addr)
	defer c.close()
	for i, req := range src.requests {
		if err := c.do(req, src.stream); err != nil {
			return fmt.Errorf("first call of company %d: %w", i, err)
		}
	}
	return nil
}

// memory is the resident memory and the live heap, in MiB. A gateway without
// pprof gives 0 for the heap and a line on standard error.
func memory(g *gateway) (resident, heap float64, err error) {
	n, err := g.heap()
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench: no live heap:", err)
	}
	r, err := rss(g.pid())
	return mib(r), mib(n), err
}
