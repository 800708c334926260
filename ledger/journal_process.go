package ledger

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// processesName is the file in the folder that says which processes had it: a line
// for each, with its name and until when what it wrote is sure to be there: for
// "always", or while the machine runs that had this boot id.
const processesName = "processes"

// maxProcesses is how many are remembered.
const maxProcesses = 32

// enlist notes that the process with that name has the folder now, and returns the
// ones before of which all is there that they wrote. Where something is damaged that
// is none.
func (j *journal) enlist(name string, damaged bool) (earlier []string, err error) {
	path := filepath.Join(j.dir, processesName)
	text, err := os.ReadFile(path)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("cannot read who had the journal: %w", err)
	}
	boot := bootID()
	var kept []string
	for line := range strings.Lines(string(text)) {
		who, while, ok := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		if ok && !damaged && (while == "always" || while == boot && boot != "") {
			earlier, kept = append(earlier, who), append(kept, line)
		}
	}
	if over := len(kept) - (maxProcesses - 1); over > 0 {
		earlier, kept = earlier[over:], kept[over:]
	}
	if j.o.Sync == SyncAlways {
		boot = "always"
	}
	kept = append(kept, name+" "+boot+"\n")
	err = os.WriteFile(path+newExt, []byte(strings.Join(kept, "")), 0o600)
	if err == nil {
		err = os.Rename(path+newExt, path)
	}
	if err == nil && j.o.Sync != SyncOff {
		err = syncFolder(j.dir)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("cannot note who has the journal: %w", err), removeAny(path), removeAny(path+newExt))
	}
	return earlier, nil
}

// bootID is another after each start of the machine, "" where that is not known.
func bootID() string {
	id, err := os.ReadFile("/proc/sys/kernel/random/boot_id") // random(4)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(id))
}
