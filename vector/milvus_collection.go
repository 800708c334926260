package vector

import (
	"context"
	"strconv"
	"time"

	"github.com/milvus-io/milvus-sdk-go/v2/client"
	"github.com/milvus-io/milvus-sdk-go/v2/entity"
)

// prepareTimeout bounds the making of a collection, which takes seconds and goes
// on when the one who waits for it has gone.
const prepareTimeout = time.Minute

// prepare returns once the collection for vectors of dim is there and loaded. It
// asks the server once; others wait for that.
func (m *Milvus) prepare(ctx context.Context, c *client.GrpcClient, dim int) error {
	m.mu.Lock()
	done := m.ready[dim]
	if done == nil {
		done = make(chan struct{})
		m.ready[dim] = done
		go m.make(c, dim, done)
	}
	m.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return late(ctx.Err())
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.bad[dim]
}

// make makes and loads a collection. What fails is tried again by who asks next.
func (m *Milvus) make(c *client.GrpcClient, dim int, done chan struct{}) {
	ctx, cancel := context.WithTimeout(context.Background(), prepareTimeout)
	defer cancel()
	err := m.conn.failed(ctx, "make the collection of "+strconv.Itoa(dim)+" dimensions", m.create(ctx, c, dim))
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.bad[dim] = err; err != nil {
		delete(m.ready, dim)
	}
	close(done)
}

// partitions is over how many parts of a collection the companies are spread. It
// is the server's own default, said so that it stays the same.
const partitions = 64

// create makes the collection unless it is there. Two gateways may do so at once:
// each step can be made again.
func (m *Milvus) create(ctx context.Context, c *client.GrpcClient, dim int) error {
	name := m.collection(dim)
	there, err := c.HasCollection(ctx, name)
	if err != nil {
		return err
	}
	if !there {
		text := func(name string) *entity.Field {
			return entity.NewField().WithName(name).WithDataType(entity.FieldTypeVarChar).WithMaxLength(64)
		}
		schema := entity.NewSchema().WithName(name).
			WithField(text(fieldKey).WithIsPrimaryKey(true)).
			WithField(text(fieldCompany).WithIsPartitionKey(true)).
			WithField(text(fieldSpace)).WithField(text(fieldStore)).WithField(text(fieldFile)).
			WithField(entity.NewField().WithName(fieldChunk).WithDataType(entity.FieldTypeInt64)).
			WithField(entity.NewField().WithName(fieldVector).WithDataType(entity.FieldTypeFloatVector).WithDim(int64(dim)))
		if err := c.CreateCollection(ctx, schema, 1, client.WithPartitionNum(partitions), client.WithConsistencyLevel(entity.ClBounded)); err != nil {
			return err
		}
	}
	state, err := c.GetLoadState(ctx, name, nil)
	if err != nil || state == entity.LoadStateLoaded {
		return err
	}
	graph, err := entity.NewIndexHNSW(entity.COSINE, graphDegree, buildWidth)
	if err != nil {
		return err
	}
	if err := c.CreateIndex(ctx, name, fieldVector, graph, false); err != nil {
		return err
	}
	return c.LoadCollection(ctx, name, false)
}
