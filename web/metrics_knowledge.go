package web

import "github.com/prometheus/client_golang/prometheus"

// knowledgeState tells of files on their way and of files being taken into vector
// stores.
type knowledgeState struct {
	g                                      *Gateway
	transfers, running, taken, lost, again *prometheus.Desc
}

func newKnowledgeState(g *Gateway) *knowledgeState {
	desc := func(name, help string) *prometheus.Desc { return prometheus.NewDesc("bulkhead_"+name, help, nil, nil) }
	return &knowledgeState{
		g:         g,
		transfers: desc("file_transfers_open", "Files that are being received and sent."),
		running:   desc("ingest_jobs_running", "Files that are being taken into vector stores, embedded anew or removed."),
		taken:     desc("ingest_jobs_done_total", "Jobs on files in vector stores that were done."),
		lost:      desc("ingest_jobs_failed_total", "Files that could not be taken in; their owners see why."),
		again:     desc("ingest_jobs_retried_total", "Jobs that went wrong and are tried again."),
	}
}

// Describe implements prometheus.Collector.
func (k *knowledgeState) Describe(to chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{k.transfers, k.running, k.taken, k.lost, k.again} {
		to <- d
	}
}

// Collect implements prometheus.Collector.
func (k *knowledgeState) Collect(to chan<- prometheus.Metric) {
	if k.g.Knowledge == nil {
		return
	}
	st := k.g.Knowledge.Ingest.Stats()
	gauge(to, k.transfers, float64(k.g.transfers.open()))
	gauge(to, k.running, float64(st.Running))
	count(to, k.taken, st.Done)
	count(to, k.lost, st.Failed)
	count(to, k.again, st.Retried)
}
