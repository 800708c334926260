// Command gateway is Bulkhead: one OpenAI-compatible endpoint that serves many
// companies and never mixes them. Run it without arguments for what it can do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	_ "time/tzdata" // the zones of budgets, also where the machine has none

	"bulkhead/rag"
)

// version is set by the linker in a release.
var version = "dev"

const usage = `Bulkhead, the multi-tenant LLM gateway

  gateway serve   [-config FILE]       serve
  gateway check   [-config FILE] [-json]
                                       report every problem of the configuration, or reach every server it names
  gateway migrate [-config FILE]       bring the database up to this version
  gateway version

These reach the store and Vault themselves.

  gateway credential move -to vault|sealed [-config FILE] [-company ID] [-keep] [-dry-run] [-json]
                                       move the companies' provider credentials, each once it was read back
  gateway credential sync [-config FILE] [-company ID] [-json]
                                       note what others put into Vault or removed there

  gateway master seal [-config FILE]   seal the master key with vault_transit_key, or anew with its newest version

  gateway audit verify [-config FILE] [-company ID|operator] [-expect COUNT:HASH] [-json]
                                       hold the audit rows against their chains; changes nothing

These speak to a running gateway. -json prints one JSON object.

  gateway company create NAME          make a company and show its first keys, once
  gateway company list
  gateway company suspend|resume|erase ID
  gateway key create [-project ID] [-name NAME] [-kind live|test|admin] [-expires SECONDS]
  gateway key revoke KEY_ID            the id, not the key
  gateway credential set PROVIDER [-base-url URL] [-resource NAME] [-keyless]
                                       reads the secret from standard input
  gateway ledger export [-format csv|jsonl] [-start DAY] [-end DAY] [-out FILE]
                                       what each attempt used and cost

  BULKHEAD_URL           the public address (default http://127.0.0.1:8080)
  BULKHEAD_ADMIN_URL     the operator's address (default http://127.0.0.1:8081)
  BULKHEAD_OPERATOR_KEY  for company (default: the file operator.key in the data folder)
  BULKHEAD_API_KEY       a company's admin key, for key, credential and ledger
                         (default: the demo company's, from demo.json in the data folder)
  BULKHEAD_DATA          the data folder (default ./data)
`

func main() {
	if len(os.Args) > 1 && os.Args[1] == rag.ExtractArg {
		os.Exit(rag.ExtractChild(os.Args[2:]))
	}
	if err := rag.KeepDescriptors(); err != nil {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		os.Exit(1)
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := dispatch(ctx, os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "gateway:", err)
		stop()
		os.Exit(1)
	}
}

func dispatch(ctx context.Context, args []string) error {
	name := ""
	if len(args) > 0 {
		name, args = args[0], args[1:]
	}
	switch name {
	case "serve":
		return serve(ctx, args)
	case "check":
		return runCheck(ctx, args)
	case "migrate":
		return migrate(ctx, args)
	case "version":
		fmt.Println(versionText())
		return nil
	case "audit":
		if len(args) == 0 || args[0] != "verify" {
			return errors.New("there is gateway audit verify; run gateway help")
		}
		return auditVerify(ctx, args[1:], os.Stdout)
	case "master":
		if len(args) == 0 || args[0] != "seal" {
			return errors.New("there is gateway master seal; run gateway help")
		}
		return sealMaster(ctx, args[1:], os.Stdout)
	case "company", "key", "credential", "ledger":
		if name == "credential" && len(args) > 0 && (args[0] == "move" || args[0] == "sync") {
			return credentials(ctx, args[0], args[1:])
		}
		return command(ctx, name, args)
	case "", "help", "-h", "-help", "--help":
		fmt.Print(usage)
		return nil
	}
	return fmt.Errorf("unknown command %q; run gateway help", name)
}

func versionText() string {
	text := "bulkhead " + version
	if info, ok := debug.ReadBuildInfo(); ok {
		text += " " + info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" && len(s.Value) >= 12 {
				text += " " + s.Value[:12]
			}
		}
	}
	return text
}
