package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"bulkhead/config"
	"bulkhead/store"
)

// checker looks at what a configuration names.
type checker struct{ cfg *config.Config }

func (c checker) storeOptions() store.Options { return storeOptions(c.cfg, nil) }

func one(s state, format string, a ...any) []finding {
	return []finding{{State: s, Detail: fmt.Sprintf(format, a...)}}
}

// providers says which there are. None is called: it could cost money.
func (c checker) providers(context.Context) []finding {
	s, err := settings(c.cfg, nil)
	if err != nil {
		return one(failed, "%s", err)
	}
	return one(good, "%d, of which %d are configured here; none is called", len(s.Vendors), len(c.cfg.Providers))
}

// littleRoom is how much of the disk should be free, in bytes.
const littleRoom = 256 << 20

// dataFolder sees whether the gateway can write there, and nobody else can read.
func (c checker) dataFolder(context.Context) []finding {
	dir := c.cfg.Data
	info, err := os.Stat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		above := dir
		for errors.Is(err, fs.ErrNotExist) && above != filepath.Dir(above) {
			above = filepath.Dir(above)
			_, err = os.Stat(above)
		}
		const write = 2 // W_OK
		if err = syscall.Access(above, write); err != nil {
			return one(failed, "it is not there and cannot be made: %s: %s", above, err)
		}
		return one(good, "it is not there yet; the first start makes it")
	}
	if err != nil {
		return one(failed, "%s", err)
	}
	probe, err := os.CreateTemp(dir, ".check-*")
	if err != nil {
		return one(failed, "the gateway cannot write there: %s", err)
	}
	_, err = probe.WriteString("x")
	if err = errors.Join(err, probe.Close(), os.Remove(probe.Name())); err != nil {
		return one(failed, "the gateway cannot write there: %s", err)
	}
	var disk syscall.Statfs_t
	if err := syscall.Statfs(dir, &disk); err != nil {
		return one(failed, "%s", err)
	}
	free := uint64(disk.Bavail) * uint64(disk.Bsize)
	switch mode := info.Mode().Perm(); {
	case mode&0o077 != 0:
		return one(warning, "it can be written, but has mode %#o, so others can look into it: chmod 700 it", mode)
	case free < littleRoom:
		return one(warning, "it can be written, but only %d MiB are free on its disk", free>>20)
	}
	return one(good, "it can be written; %d MiB are free on its disk", free>>20)
}

// listen sees whether the address can be listened on. In use it may be by the
// gateway that runs with this configuration.
func (c checker) listen(addr string) []finding {
	l, err := net.Listen("tcp", addr)
	switch {
	case err == nil:
		if err := l.Close(); err != nil {
			return one(failed, "%s", err)
		}
		return one(good, "free")
	case errors.Is(err, syscall.EADDRINUSE) && dataInUse(c.cfg.Data):
		return one(good, "in use, as is the data folder: a gateway with this configuration is running")
	case errors.Is(err, syscall.EADDRINUSE):
		return one(failed, "in use by another program")
	}
	return one(failed, "%s", err)
}

// dataInUse reports whether a gateway has locked the folder.
func dataInUse(dir string) bool {
	f, err := os.Open(filepath.Join(dir, "lock"))
	if err != nil {
		return false
	}
	defer f.Close()
	return errors.Is(syscall.Flock(int(f.Fd()), syscall.LOCK_SH|syscall.LOCK_NB), syscall.EWOULDBLOCK)
}

// lastDays is how long before its end a certificate should be renewed.
const lastDays = 14 * 24 * time.Hour

func (c checker) tls(context.Context) []finding {
	pair, err := tls.LoadX509KeyPair(c.cfg.TLS.Cert, c.cfg.TLS.Key)
	if err != nil {
		return one(failed, "%s", err)
	}
	end := pair.Leaf.NotAfter
	switch now := time.Now(); {
	case now.Before(pair.Leaf.NotBefore):
		return one(failed, "the certificate is good from %s only", pair.Leaf.NotBefore.Format(time.DateOnly))
	case now.After(end):
		return one(failed, "the certificate ended on %s", end.Format(time.DateOnly))
	case now.Add(lastDays).After(end):
		return one(warning, "the certificate ends on %s", end.Format(time.DateOnly))
	}
	return one(good, "the certificate is good until %s", end.Format(time.DateOnly))
}
